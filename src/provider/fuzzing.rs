//! What reads netcup's answers, as functions of bytes (see [`crate::fuzzing`]).

use super::rest::format::{self as json, Family};
use super::rest::listing::sort;
use super::soap::format::{self as soap, Reply};
use super::{date, oidc, token_file};
use crate::core::facts::ProviderTime;
use crate::types::{FailoverIp, Span};

/// REST: lists, servers, interfaces, tasks, refusals.
pub(crate) fn rest(bytes: &[u8]) -> bool {
    let mut taken = false;
    for family in [Family::V4, Family::V6] {
        let Ok(entries) = json::parse_failover_ips(family, bytes) else {
            continue;
        };
        taken |= !entries.read.is_empty();
        let asked = entries.read.iter().map(|entry| entry.ip).collect();
        let listing = sort(&entries, None, &asked);
        assert!(listing.routes.keys().all(|ip| asked.contains(ip)), "an IP out of nowhere");
        let v4 = |ip: &FailoverIp| matches!(ip, FailoverIp::V4(_));
        assert!(asked.iter().all(|ip| v4(ip) == (family == Family::V4)), "the other family");
    }
    taken |= json::parse_servers(bytes).is_ok_and(|(servers, _)| !servers.is_empty());
    taken |= json::parse_server(bytes).is_ok();
    taken |= json::parse_interfaces(bytes).is_ok_and(|macs| !macs.is_empty());
    taken |= json::parse_task(bytes).is_ok();
    taken |= json::parse_user(bytes).is_ok_and(|account| account.is_some());
    let now = ProviderTime(1_795_383_005_000);
    let hour = Span::secs(3600);
    for date in [Some(now), None] {
        let Ok(tasks) = json::parse_tasks(bytes, hour, date, None) else {
            continue;
        };
        taken |= tasks.count > 0;
        assert!(tasks.calls.len() <= tasks.count, "more calls than entries");
        let since = tasks.now.map(|newest| ProviderTime(newest.0.saturating_sub(hour.0)));
        assert!(tasks.calls.iter().all(|call| Some(call.at) >= since), "a call of another window");
    }
    taken | !json::parse_error(bytes).is_empty()
}

/// The login: device code, tokens, claims, refusals.
pub(crate) fn oidc(bytes: &[u8]) -> bool {
    let grant = oidc::parse_grant(bytes).map(|grant| oidc::parse_claims(&grant.access));
    let code = oidc::parse_code(bytes);
    let error = oidc::parse_error(bytes);
    let user = oidc::parse_userinfo(bytes);
    grant.is_ok() || code.is_ok() || error.is_some() || user.is_ok()
}

/// SOAP: every operation's answer.
pub(crate) fn soap(bytes: &[u8]) -> bool {
    let operations = ["changeIPRouting", "getVServers", "getVServerIPs", "getVServerInformation"];
    let mut taken = false;
    for operation in operations {
        match soap::parse(operation, bytes) {
            Ok(Reply::Response(response)) => {
                taken |= soap::parse_change(&response).is_ok();
                taken |= !soap::parse_servers(&response).0.is_empty();
                taken |= !soap::parse_ips(&response).is_empty();
                taken |= soap::parse_information(&response).is_ok();
            }
            Ok(Reply::Fault(_)) => taken = true,
            Err(why) => assert!(!why.is_empty(), "refused without a reason"),
        }
    }
    taken
}

/// `Date` and `Retry-After` headers, and times in JSON.
pub(crate) fn date(text: &str) -> bool {
    // The end of the year 9999 in the last time zone.
    const LAST: u64 = 253_402_300_800_000 + 86_400_000;
    let read = [date::http(text), date::rfc3339(text)];
    assert!(read.into_iter().flatten().all(|at| at.0 <= LAST), "a time that is none");
    let wait = date::retry_after(text, Some(ProviderTime(1_795_383_005_000)));
    assert!(wait.is_none_or(|wait| wait <= Span::secs(86_400)), "a wait without end");
    read.into_iter().any(|time| time.is_some()) || wait.is_some()
}

/// The token file.
pub(crate) fn token_file(bytes: &[u8]) -> bool {
    token_file::parse(bytes).is_some()
}
