//! Nanoseconds in larger units, without the division that takes longer than a table look-up.

/// Whole seconds in `nanoseconds`.
#[inline(always)]
pub const fn seconds(nanoseconds: u64) -> u64 {
    const SECOND: u64 = 1_000_000_000;
    // 2^55 / 10^9, rounded down. The product stays below 2^64 for some 15 years.
    const FACTOR: u64 = (1 << 55) / SECOND;
    // Less than one too few.
    let seconds = ((nanoseconds >> 20) * FACTOR) >> 35;
    seconds + ((SECOND - 1).wrapping_sub(nanoseconds - seconds * SECOND) >> 63)
}

/// Whole milliseconds in `nanoseconds`.
#[inline(always)]
pub const fn milliseconds(nanoseconds: u64) -> u64 {
    const MILLISECOND: u64 = 1_000_000;
    let seconds = seconds(nanoseconds);
    // Less than 2^30, so that 32 bits are enough for the rest.
    let rest = nanoseconds - seconds * 1_000_000_000;
    seconds * 1000 + ((rest * ((1 << 50) / MILLISECOND + 1)) >> 50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_a_division_would_have_it() {
        const YEAR: u64 = 365 * 24 * 3600 * 1_000_000_000;
        let mut random = fastrand::Rng::with_seed(1);
        let edges = (0..100_000).flat_map(|second| [second * 1_000_000_000, second * 1_000_000]);
        let later = [1, YEAR / 1_000_000_000, 15 * YEAR / 1_000_000_000]
            .map(|second| second * 1_000_000_000);
        let anywhere = (0..100_000).map(|_| random.u64(..15 * YEAR));
        for moment in edges.chain(later).chain(anywhere) {
            for nanoseconds in [moment.saturating_sub(1), moment, moment + 1] {
                assert_eq!(seconds(nanoseconds), nanoseconds / 1_000_000_000);
                assert_eq!(milliseconds(nanoseconds), nanoseconds / 1_000_000);
            }
        }
    }
}
