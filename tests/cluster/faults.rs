//! Answers that are wrong, late, half or missing: what the adapter makes of them, and what it does not repeat.

use std::time::{Duration, Instant};

use foip::cluster::{Cluster, Options};
use foip::core::facts::ApiFailure;
use foip::types::Span;
use foip_standins::fault::{Fault, Match, Rule};

use crate::builtin::Builtin;
use crate::suite::{doc, group};
use crate::{TIMEOUT, run};

/// A deadline, with what a busy machine adds.
pub const DEADLINE: Duration = TIMEOUT.as_std().saturating_add(Duration::from_millis(1500));

/// Well below the deadline: this waited for nobody.
pub const SHORT: Duration = Duration::from_millis(1500);

pub fn unknown<T: std::fmt::Debug>(result: Result<T, ApiFailure>) -> String {
    match result {
        Err(ApiFailure::Unknown(why)) => why,
        other => panic!("not unknown: {other:?}"),
    }
}

pub fn refused<T: std::fmt::Debug>(result: Result<T, ApiFailure>) -> String {
    match result {
        Err(ApiFailure::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

pub async fn eventually(what: &str, within: Duration, mut check: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < within, "{what} within {within:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every answer of one request, sorted; each call asks exactly once.
#[test]
fn statuses_are_sorted_and_nothing_is_repeated() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        let key = group("sorted");
        let version = cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        for status in
            [302, 400, 401, 403, 404, 405, 408, 409, 410, 413, 418, 422, 429, 500, 502, 503, 504]
        {
            api.fault("get", "/leases/", Fault::retry_after(status, "1"));
            api.fault("update", "/leases/", Fault::status(status));
            api.fault("list", "/leases", Fault::status(status));
            let before = api.taken().len();
            let failures = [
                cluster.read(&key).await.unwrap_err(),
                cluster.write(&key, Some(&version), &doc("node-b", 2)).await.unwrap_err(),
                cluster.list().await.unwrap_err(),
            ];
            for failure in failures {
                let fits = match status {
                    409 => failure == ApiFailure::Conflict,
                    400 | 401 | 403 | 413 | 422 => matches!(failure, ApiFailure::Denied(_)),
                    _ => matches!(failure, ApiFailure::Refused(_)),
                };
                assert!(fits, "{status}: {failure:?}");
            }
            assert_eq!(api.taken().len() - before, 3, "{status}");
            api.clear();
        }
        assert_eq!(cluster.read(&key).await.unwrap().unwrap().version, version);
    });
}

/// Not all that says 404 knows what it speaks of, and not all that says 200 answers the question.
#[test]
fn an_answer_about_something_else_is_unknown() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        let key = group("there");
        let version = cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        let other = cluster.write(&group("other"), None, &doc("node-b", 1)).await.unwrap();
        assert_ne!(version, other);
        let lease = api.kube.get("leases", "kube-system", "foip-other").unwrap().to_string();
        let half = lease[..lease.len() / 2].to_owned();
        for body in [
            "404 page not found",
            "<html>not here</html>",
            r#"{"kind":"Status","reason":"NotFound","details":{}}"#,
            r#"{"kind":"Status","reason":"NotFound","details":{"name":"foip-other"}}"#,
        ] {
            api.fault("GET", "/leases", Fault::body(404, body));
            api.fault("PUT", "/leases", Fault::body(404, body));
            api.fault("GET", "/nodes/", Fault::body(404, body));
            refused(cluster.read(&key).await);
            refused(cluster.list().await);
            refused(cluster.write(&key, Some(&version), &doc("node-a", 2)).await);
            refused(cluster.node().await);
            api.clear();
        }
        for (status, body) in [
            (200, "<html>please log in</html>"),
            (200, ""),
            (200, "null"),
            (200, "[]"),
            (200, r#"{"kind":"Status","status":"Success"}"#),
            (200, r#"{"metadata":{"name":"foip-there"}}"#),
            (200, r#"{"metadata":{"name":"foip-there","resourceVersion":""},"spec":{}}"#),
            (200, &lease),
            (200, &half),
        ] {
            api.fault("GET", "/leases", Fault::body(status, body));
            api.fault("PUT", "/leases", Fault::body(status, body));
            api.fault("GET", "/nodes/", Fault::body(status, body));
            unknown(cluster.read(&key).await);
            unknown(cluster.list().await);
            unknown(cluster.write(&key, Some(&version), &doc("node-a", 2)).await);
            unknown(cluster.node().await);
            api.clear();
        }
        assert!(cluster.node().await.unwrap().is_some());
    });
}

#[test]
fn broken_answers_are_unknown_within_the_deadline() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        let key = group("broken");
        let mut version = cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        let mut term = 1;
        for (fault, carried_out) in [
            (Fault::Half, true),
            (Fault::Cut { after: false }, false),
            (Fault::Cut { after: true }, true),
            (Fault::Garbage, true),
            (Fault::Huge { bytes: 64 << 20 }, true),
            (Fault::Drip { ms: 50 }, true),
            (Fault::Hang { after: true }, true),
            (Fault::Hang { after: false }, false),
        ] {
            eprintln!("{fault:?}");
            api.fault("GET", "/leases/", fault.clone());
            let start = Instant::now();
            let why = unknown(cluster.read(&key).await);
            assert!(why.contains("https://127.0.0.1:"), "{why}");
            assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
            api.clear();
            api.fault("PUT", "/leases/", fault);
            let before = api.taken().len();
            let start = Instant::now();
            // What is written twice the same is not written: the version stays.
            term += 1;
            unknown(cluster.write(&key, Some(&version), &doc("node-b", term)).await);
            assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
            api.clear();
            // The write was sent once, and what became of it only a read tells.
            let stored = cluster.read(&key).await.unwrap().unwrap();
            let writes = |path: &str| {
                let taken = api.taken().split_off(before).into_iter();
                taken.filter(|taken| taken.method == "PUT" && taken.path.contains(path)).count()
            };
            eventually("the write is logged", DEADLINE, async || writes("broken") > 0).await;
            assert_eq!(writes("broken"), 1);
            assert_eq!(stored.version != version, carried_out);
            version = stored.version;
        }
    });
}

/// A write that was given up lands later, after newer reads; compare-and-swap keeps it harmless.
#[test]
fn a_write_that_was_given_up_may_land() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        let key = group("late");
        let version = cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        api.kube.fault(Rule::new(Match::method("PUT", "late"), Fault::Delay { ms: 2600 }).times(1));
        unknown(cluster.write(&key, Some(&version), &doc("node-b", 2)).await);
        assert_eq!(cluster.read(&key).await.unwrap().unwrap().version, version);
        eventually("the write lands", Duration::from_secs(4), async || {
            *cluster.read(&key).await.unwrap().unwrap().doc == doc("node-b", 2)
        })
        .await;
        // The other way round: what was written meanwhile is not overwritten.
        let version = cluster.read(&key).await.unwrap().unwrap().version;
        api.kube.fault(Rule::new(Match::method("PUT", "late"), Fault::Delay { ms: 2600 }).times(1));
        unknown(cluster.write(&key, Some(&version), &doc("node-b", 3)).await);
        let newer = cluster.write(&key, Some(&version), &doc("node-c", 3)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_eq!(cluster.read(&key).await.unwrap().unwrap().version, newer);
    });
}

#[test]
fn a_request_that_hangs_holds_up_no_other() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster();
        let (slow, fast) = (group("slow"), group("fast"));
        cluster.write(&slow, None, &doc("node-a", 1)).await.unwrap();
        let mut version = cluster.write(&fast, None, &doc("node-a", 1)).await.unwrap();
        api.fault("GET", "/leases/foip-slow", Fault::Hang { after: false });
        let hanging: Vec<_> = (0..8)
            .map(|_| {
                let (cluster, slow) = (cluster.clone(), slow.clone());
                tokio::spawn(async move { cluster.read(&slow).await })
            })
            .collect();
        let start = Instant::now();
        let mut renewals = 1;
        while start.elapsed() < TIMEOUT.as_std() {
            let asked = Instant::now();
            renewals += 1;
            version = cluster.write(&fast, Some(&version), &doc("node-a", renewals)).await.unwrap();
            assert!(asked.elapsed() < SHORT, "{:?}", asked.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for hung in hanging {
            unknown(hung.await.unwrap());
        }
        assert!(renewals > 10, "{renewals}");
        api.clear();
        assert!(cluster.read(&slow).await.is_ok());
    });
}

/// Only the list hangs, or breaks: neither the server in use nor its connections are changed for it.
#[test]
fn a_list_that_fails_takes_nothing_from_reads() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster_of_all();
        let key = group("single");
        let mut version = cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        for fault in [
            Fault::Hang { after: false },
            Fault::Half,
            Fault::Garbage,
            Fault::status(429),
            Fault::status(500),
            Fault::status(403),
            Fault::body(200, "{}"),
        ] {
            api.fault("list", "/leases?", fault.clone());
            let before = api.taken().len();
            let next = doc(&format!("{fault:?}"), 2);
            let (list, written) =
                tokio::join!(cluster.list(), cluster.write(&key, Some(&version), &next));
            version = written.unwrap();
            assert!(list.is_err(), "{fault:?}");
            assert_eq!(cluster.read(&key).await.unwrap().unwrap().version, version);
            let since = api.taken().split_off(before);
            assert!(since.iter().all(|taken| taken.listener == 0), "{fault:?}: {since:?}");
            let others = since.iter().filter(|taken| !taken.path.contains("limit=")).count();
            assert!(others == 2 && since.len() <= 5, "{fault:?}: {since:?}");
            api.clear();
        }
        // Two requests at once open two, and another one each where an idle one came free while they connected. Were
        // each failure to leave its own, there would be seven more. The server learns in its own time of dropped ones.
        let few = async || api.connections() <= 4;
        eventually("at most four connections are left", Duration::from_secs(5), few).await;
    });
}

#[test]
fn connections_do_not_pile_up() {
    let api = Builtin::start();
    run(async {
        let cluster = Cluster::new(Options { timeout: Span::millis(300), ..api.options() });
        let key = group("pile");
        cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        assert!(api.connections() <= 2, "{}", api.connections());
        for fault in [Fault::Hang { after: false }, Fault::Half, Fault::Garbage] {
            api.fault("GET", "/leases/", fault);
            for _ in 0..5 {
                let reads = (0..6).map(|_| {
                    let (cluster, key) = (cluster.clone(), key.clone());
                    tokio::spawn(async move { cluster.read(&key).await })
                });
                for read in reads.collect::<Vec<_>>() {
                    unknown(read.await.unwrap());
                }
            }
            api.clear();
            eventually("old connections end", Duration::from_secs(3), async || {
                cluster.read(&key).await.unwrap();
                api.connections() <= 2
            })
            .await;
        }
    });
}

/// What is not asked for is not sent, and nothing is ever read out of a cache.
#[test]
fn each_question_is_one_request_and_a_quorum_read() {
    let api = Builtin::start();
    run(async {
        let cluster = api.cluster_of_all();
        let key = group("count");
        let version = cluster.write(&key, None, &doc("node-a", 1)).await.unwrap();
        cluster.read(&key).await.unwrap();
        cluster.write(&key, Some(&version), &doc("node-a", 2)).await.unwrap();
        cluster.read(&group("absent")).await.unwrap();
        cluster.list().await.unwrap();
        cluster.node().await.unwrap();
        cluster.annotations().await.unwrap();
        assert!(cluster.local_ready().await);
        let taken = api.taken();
        let asked: Vec<(&str, &str)> =
            taken.iter().map(|taken| (taken.method.as_str(), taken.path.as_str())).collect();
        const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
        assert_eq!(
            asked,
            [
                ("POST", format!("{LEASES}?fieldManager=foip").as_str()),
                ("GET", &format!("{LEASES}/foip-count")),
                ("PUT", &format!("{LEASES}/foip-count?fieldManager=foip")),
                ("GET", &format!("{LEASES}/foip-absent")),
                (
                    "GET",
                    &format!(
                        "{LEASES}?labelSelector=app.kubernetes.io%2Fmanaged-by%3Dfoip&limit=50"
                    )
                ),
                ("GET", "/api/v1/nodes/node-a"),
                ("GET", "/api/v1/nodes/node-a"),
                ("GET", "/readyz"),
            ]
        );
        assert!(taken.iter().all(|taken| taken.listener == 0));
        assert_eq!(api.connections(), 1);
    });
}
