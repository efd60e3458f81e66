//! Randomness that the simulator can replay. Nothing above this crate takes random numbers from elsewhere when
//! they decide what happens.

/// The next number of the current world's random sequence: the kernel's, or the simulation's seed's.
///
/// # Panics
/// Outside a reactor.
pub fn random_u64() -> u64 {
    crate::core::with_current(|core| core.backend().random_u64())
}
