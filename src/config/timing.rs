//! `[lease]`, `[health]` and `[address]`: times that must make sense together.

use super::reader::Section;
use crate::core::config::LeaseTiming;
use crate::types::Span;

const DURATION: Span = Span::secs(10);
const RENEW: Span = Span::secs(2);
const TIMEOUT: Span = Span::secs(2);
const MARGIN: Span = Span::secs(1);

/// Renewals that must fit into a lease, so that losing one or two does not lose the lease.
const RENEWALS: u64 = 3;

/// `[lease]`; `None` where it makes no sense.
pub(super) fn lease(root: &Section<'_>) -> Option<LeaseTiming> {
    let section = root.table("lease", "[lease]", &["duration", "renew"]);
    let given_duration = section.span("duration", "3s", "30s");
    let given_renew = section.span("renew", "1s", "10s");
    if (section.has("duration") && given_duration.is_none())
        || (section.has("renew") && given_renew.is_none())
    {
        return None;
    }
    let duration = given_duration.map_or(DURATION, |item| item.value);
    let renew = given_renew.map_or(RENEW, |item| item.value);
    if !duration.0.is_multiple_of(1000) {
        section.say(
            section.place("duration"),
            format!(
                "duration = \"{}ms\" is not in whole seconds, which is what a Lease object can hold; \
                 write \"{}s\"",
                duration.0,
                duration.as_secs() + 1
            ),
        );
        return None;
    }
    if duration < renew.times(RENEWALS) {
        let key = if given_duration.is_some() { "duration" } else { "renew" };
        let longest = Span(duration.0 / RENEWALS);
        let renew_fix = match longest.0 {
            1000 => "renew = \"1s\"".to_owned(),
            longest => format!("renew = \"{longest}ms\" or shorter"),
        };
        section.say(
            section.place(key),
            format!(
                "duration {duration} is shorter than {RENEWALS} times renew {renew}: one lost renewal would nearly \
                 lose the lease; write {renew_fix}, or duration = \"{}s\" or longer",
                renew.times(RENEWALS).0.div_ceil(1000),
            ),
        );
        return None;
    }
    Some(timing(duration, renew))
}

/// A request sent when a renewal is due must be able to time out before authority ends, so both the timeout
/// and the margin shrink with a short lease: renew + timeout + margin < duration.
fn timing(duration: Span, renew: Span) -> LeaseTiming {
    let spare = duration.less(renew);
    LeaseTiming {
        duration,
        renew,
        timeout: TIMEOUT.min(Span(spare.0 / 2)),
        margin: MARGIN.min(Span(spare.0 / 4)),
    }
}

/// What `[health]` says.
pub(super) struct Health {
    pub dwell: Span,
    pub api_grace: Span,
}

/// `[health]`.
pub(super) fn health(root: &Section<'_>) -> Health {
    let section = root.table("health", "[health]", &["dwell", "api_server_grace"]);
    let or = |key, least, most, default| {
        let given = section.span(key, least, most);
        given.map_or(default, |item| item.value)
    };
    Health {
        dwell: or("dwell", "2s", "1h", Span::secs(30)),
        api_grace: or("api_server_grace", "5s", "1h", Span::secs(30)),
    }
}

/// `[address]`: the kernel's lifetime of an address.
pub(super) fn lifetime(root: &Section<'_>) -> Span {
    let section = root.table("address", "[address]", &["lifetime"]);
    let given = section.span("lifetime", "10s", "10m");
    given.map_or(Span::secs(45), |item| item.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accepted_lease_leaves_room_for_a_request_that_times_out() {
        for seconds in 3..=30 {
            let duration = Span::secs(seconds);
            for renew in (1000..=duration.0 / RENEWALS).step_by(50) {
                let timing = timing(duration, Span(renew));
                let sum = timing.renew + timing.timeout + timing.margin;
                assert!(sum < timing.duration, "{timing:?}");
                assert!(timing.timeout >= Span::secs(1), "{timing:?}");
                assert!(timing.margin >= Span(500), "{timing:?}");
            }
        }
    }

    #[test]
    fn the_default_lease_is_the_documented_one() {
        let default = timing(DURATION, RENEW);
        assert_eq!(default.timeout, Span::secs(2));
        assert_eq!(default.margin, Span::secs(1));
        let short = timing(Span::secs(5), Span::secs(1));
        assert_eq!((short.timeout, short.margin), (Span(2000), Span(1000)));
        let shortest = timing(Span::secs(3), Span::secs(1));
        assert_eq!((shortest.timeout, shortest.margin), (Span(1000), Span(500)));
    }
}
