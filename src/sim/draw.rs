//! Every key of the configuration, drawn at random.

use super::rng::Rng;
use super::setup::Setup;
use crate::types::Span;

/// Draws what is not what the seed is about. It comes from a source of its own: all else is as without it.
pub(crate) fn configuration(setup: &mut Setup, rng: &mut Rng) {
    setup.hosts = rng.pick(&[1, 1, 2, 3]);
    setup.checks = rng.pick(&[1, 1, 1, 2, 3]);
    setup.announce = !rng.chance(15);
    setup.lifetime = Span::secs(rng.pick(&[45, 45, 30, 60, 90]));
    setup.dwell = Span::secs(rng.pick(&[30, 30, 30, 10, 60]));
    setup.dwell_cordon = Span::secs(rng.pick(&[2, 2, 2, 5]));
    setup.grace = Span::secs(rng.pick(&[30, 30, 10, 60]));
    setup.priority = (0..setup.nodes).map(|_| rng.pick(&[100, 100, 100, 50, 200, -1])).collect();
    if setup.nodes >= 3 && rng.chance(8) {
        setup.barred = Some(rng.index(setup.nodes));
    }
}
