//! Incremental Internet checksums (RFC 1624, equation 3: `HC' = ~(~HC + ~m + m')`).

use crate::headers::{Be16, Be32};

/// How a checksum changes when some of the words it covers change.
///
/// One's complement sum of `~old + new` over 16-bit words as they lie in memory, carries not yet folded
/// in; what the kernel calls a `__wsum` difference. Up to 32,768 replaced words fit without overflow.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChecksumDelta(u32);

impl ChecksumDelta {
    /// Nothing changes.
    pub const NONE: Self = Self(0);

    /// One 16-bit word becomes another.
    #[inline(always)]
    pub fn replace16(self, old: Be16, new: Be16) -> Self {
        Self(self.0 + u32::from(!old.raw()) + u32::from(new.raw()))
    }

    /// One 32-bit word becomes another.
    #[inline(always)]
    pub fn replace32(self, old: Be32, new: Be32) -> Self {
        let (old, new) = (old.raw(), new.raw());
        self.replace16(Be16::from_raw(old as u16), Be16::from_raw(new as u16))
            .replace16(
                Be16::from_raw((old >> 16) as u16),
                Be16::from_raw((new >> 16) as u16),
            )
    }

    /// Both changes together.
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The difference as the kernel's checksum helpers take it.
    #[inline(always)]
    pub fn wsum(self) -> u32 {
        self.0
    }

    /// The difference in 16 bits, carries folded in.
    #[inline(always)]
    pub fn folded(self) -> Be16 {
        let mut sum = self.0;
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        Be16::from_raw(sum as u16)
    }

    /// The checksum after the change.
    #[inline(always)]
    pub fn apply(self, checksum: Be16) -> Be16 {
        let sum = Self(self.0 + u32::from(!checksum.raw())).folded();
        Be16::from_raw(!sum.raw())
    }

    /// The UDP checksum after the change: "none" (zero) stays none, and a computed zero is sent as
    /// `0xffff` (RFC 768).
    #[inline(always)]
    pub fn apply_udp(self, checksum: Be16) -> Be16 {
        if checksum == Be16::new(0) {
            return checksum;
        }
        match self.apply(checksum) {
            zero if zero == Be16::new(0) => Be16::new(0xffff),
            other => other,
        }
    }
}

/// The checksum of all `parts` together, computed from scratch (RFC 1071). All but the last have an even
/// length.
#[cfg(any(test, feature = "testing"))]
pub fn internet_checksum(parts: &[&[u8]]) -> Be16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u64 = words
        .map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0)))
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    Be16::new(!(sum as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(words: &[u16]) -> Be16 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        internet_checksum(&[&bytes])
    }

    #[test]
    fn equals_a_full_recomputation() {
        let mut state = 0x2545_f491_u32;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        for _ in 0..10_000 {
            let before = [random() as u16, random() as u16, random() as u16, 1];
            let after = [random() as u16, random() as u16, random() as u16, 1];
            let delta = ChecksumDelta::NONE
                .replace32(
                    Be32::new(u32::from(before[0]) << 16 | u32::from(before[1])),
                    Be32::new(u32::from(after[0]) << 16 | u32::from(after[1])),
                )
                .and(ChecksumDelta::NONE.replace16(Be16::new(before[2]), Be16::new(after[2])));
            assert_eq!(
                delta.apply(full(&before)),
                full(&after),
                "{before:x?} -> {after:x?}"
            );
        }
    }

    #[test]
    fn udp_zero_means_none_and_is_never_computed() {
        let delta = ChecksumDelta::NONE.replace16(Be16::new(1), Be16::new(2));
        assert_eq!(delta.apply_udp(Be16::new(0)), Be16::new(0));
        // 0xfffd covers a word 1 and a word 1; with 0xfffe in the second's place the sum is 0xffff.
        let to_zero = ChecksumDelta::NONE.replace16(Be16::new(1), Be16::new(0xfffe));
        assert_eq!(full(&[1, 1]), Be16::new(0xfffd));
        assert_eq!(to_zero.apply(Be16::new(0xfffd)), Be16::new(0));
        assert_eq!(to_zero.apply_udp(Be16::new(0xfffd)), Be16::new(0xffff));
    }
}
