//! Generates pseudo-random numbers for tests, the same on every run.

/// A linear congruential generator that starts at `state`; it returns numbers below its argument.
pub(crate) fn chance(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    }
}
