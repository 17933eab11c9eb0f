//! Numbers for tests that try many cases, the same ones every time.

/// Gives numbers below a bound from a linear congruential generator that starts at `state`.
pub(crate) fn chance(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    }
}
