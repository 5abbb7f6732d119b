//! The table of flows: buckets of eight, so that the usual look-up is one hash, two array indices and one
//! comparison.
//!
//! A bucket says by tags which flows it has, in a cache line; the flows themselves lie in an array of slots, eight
//! by eight. Who looks for a flow that is not there never touches a slot.
//!
//! A flow has a favourite way in its bucket, where it mostly is; its tag tells if so. Flows that have not proved to
//! be real give way to new ones, the oldest of their bucket first; a flood of them reaches no others. Those that
//! have proved it are kept, up to six of a bucket. More of them go to a hash table behind (`SPILLED`), which is
//! asked only for buckets that have ever sent one there.

use core::hint::black_box;

use bytemuck::Pod;

use crate::{
    flow::{Flow, FlowKey, address_words},
    headers::{Be32, Ip6},
};

/// Flows in a bucket.
pub const WAYS: usize = 8;

/// Flows of a bucket that can be kept. The other ways stay free for new ones, so that one of these lives until
/// at least two more have come to its bucket.
pub const MAX_KEPT: u32 = 6;

/// No way.
pub const NOWHERE: usize = WAYS;

/// One flow of a bucket.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C)]
pub struct Slot<A> {
    /// Its key; with protocol zero, which no flow has, for none.
    pub key: FlowKey<A>,
    /// The flow.
    pub flow: Flow<A>,
}

impl<A> Slot<A> {
    /// Whether there is no flow in it.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.key.protocol.0 == 0
    }

    /// Has nobody find the flow in it any more.
    #[inline(always)]
    pub fn empty(&mut self) {
        self.key.protocol.0 = 0;
    }
}

/// A bucket.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(8))]
pub struct Bucket {
    /// By way, some bits of the hash of its flow's key; no two are the same. Zero for none.
    pub tags: [u32; WAYS],
    /// By way, a byte that is 1 if its flow is kept.
    pub kept: u64,
    /// Who changes which flows are here holds this lock: [`LOCKED`], else the way whose turn it is to give
    /// way.
    pub turn: u64,
    /// Not zero if a flow of this bucket has gone to the table behind.
    pub has_spilled: u64,
    /// Zero: a bucket fills a cache line.
    pub padding: u64,
}

/// In [`Bucket::turn`]: somebody is changing the bucket.
pub const LOCKED: u64 = u64::MAX;

/// Where a flow belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The bucket.
    pub bucket: u32,
    /// Its favourite way there.
    pub way: usize,
    /// Its tag, not zero.
    pub tag: u32,
}

impl Place {
    /// The slot of one of its bucket's ways.
    #[inline(always)]
    pub fn slot(self, way: usize) -> u32 {
        self.bucket * WAYS as u32 + (way % WAYS) as u32
    }

    /// Of the flow with this key. `seed` is any number nobody outside can know, so that nobody can choose
    /// flows of one bucket.
    #[inline(always)]
    pub fn of<A: Pod>(key: &FlowKey<A>, seed: u64, buckets: u32) -> Self {
        // Odd constants with their bits spread: those of splitmix64 (Steele, Lea, Flood 2014).
        const FIRST: u64 = 0xbf58_476d_1ce4_e5b9;
        const SECOND: u64 = 0x94d0_49bb_1331_11eb;
        let (container, client) = (address_words(&key.container), address_words(&key.client));
        let ports = u64::from(key.container_port.raw()) << 16 | u64::from(key.client_port.raw());
        // A round of their own for the ports: they must not make up for bits of an address.
        let mut hash = (seed ^ ports ^ u64::from(key.protocol.0) << 32).wrapping_mul(FIRST);
        hash ^= hash >> 32;
        for (index, (container, client)) in container.iter().zip(client).enumerate() {
            if index > 0 {
                // Keeps a compiler from loading all words first, for which eBPF has no registers.
                hash = black_box(hash);
            }
            hash ^= u64::from(*container) << 32 | u64::from(*client);
            hash = hash.wrapping_mul(FIRST);
            hash ^= hash >> 32;
        }
        hash = hash.wrapping_mul(SECOND);
        hash ^= hash >> 29;
        Self {
            // The top half, scaled.
            bucket: (((hash >> 32) * u64::from(buckets)) >> 32) as u32,
            way: (hash >> 1) as usize % WAYS,
            tag: hash as u32 | 1,
        }
    }
}

impl Bucket {
    /// How many flows are kept here.
    #[inline(always)]
    pub fn count_kept(&self) -> u32 {
        // Each byte is 0 or 1, so their sum is the top byte of this product.
        (self.kept.wrapping_mul(EACH_BYTE) >> 56) as u32
    }

    /// Whether the flow in a way is kept.
    #[inline(always)]
    pub fn is_kept(&self, way: usize) -> bool {
        self.kept >> (way % WAYS * 8) & 1 != 0
    }

    /// Keeps the flow in a way, or no longer.
    #[inline(always)]
    pub fn set_kept(&mut self, way: usize, is_kept: bool) {
        let shift = way % WAYS * 8;
        self.kept = self.kept & !(1 << shift) | u64::from(is_kept) << shift;
    }

    /// The first way from `turn` on, around, whose flow is kept or, if `is_kept` is false, is not.
    #[inline(always)]
    pub fn first_way(&self, turn: u64, is_kept: bool) -> usize {
        let turn = turn % WAYS as u64;
        let kept = if is_kept {
            self.kept
        } else {
            self.kept ^ EACH_BYTE
        };
        let ahead = kept.rotate_right(turn as u32 * 8);
        let first = ahead & ahead.wrapping_neg();
        // Way n has bit 8 n now. Multiplied, its number comes out at the top.
        const NUMBERS: u64 = 0x0102_0304_0506_0700 >> 3;
        let steps = first.wrapping_mul(NUMBERS) >> 61;
        (turn + steps) as usize % WAYS
    }

    /// A way with this tag, or a free one if it is zero, else [`NOWHERE`]. Without a branch, all eight at once:
    /// the verifier would follow each way by itself.
    #[inline(always)]
    pub fn way_of(&self, tag: u32) -> usize {
        // Bit k for way 2 k, and bit 32 + k for way 2 k + 1.
        let pairs = bytemuck::cast::<_, [u64; WAYS / 2]>(self.tags);
        let mut found = 0;
        for (pair, tags) in pairs.into_iter().enumerate() {
            found |= zero_lanes(tags ^ spread(tag)) << pair;
        }
        let first = found & found.wrapping_neg();
        let (low, high) = (first & 0xf, first >> 32);
        let is_odd = (high | high.wrapping_neg()) >> 63;
        let is_none = !(found | found.wrapping_neg()) >> 63;
        // The logarithm of 1, 2, 4 or 8.
        let bit = low | high;
        let pair = (bit >> 1) - (bit >> 3);
        (pair << 1 | is_odd | is_none << 3) as usize
    }
}

/// One in each byte.
const EACH_BYTE: u64 = 0x0101_0101_0101_0101;

/// A tag in both lanes of 32 bits.
#[inline(always)]
const fn spread(tag: u32) -> u64 {
    tag as u64 * 0x0000_0001_0000_0001
}

/// Bit 0 of each lane of 32 bits that is zero.
#[inline(always)]
const fn zero_lanes(lanes: u64) -> u64 {
    const LOW: u64 = 0x7fff_ffff_7fff_ffff;
    !(((lanes & LOW) + LOW) | lanes | LOW) >> 31
}

const _: () = assert!(size_of::<Slot<Be32>>() == 16 + 96);
const _: () = assert!(size_of::<Slot<Ip6>>() == 40 + 120);
const _: () = assert!(size_of::<Bucket>() == 64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::{Be16, IpProtocol};

    fn key(client: u32, port: u16) -> FlowKey<Be32> {
        FlowKey {
            container: Be32::new(0xac11_0002),
            client: Be32::new(client),
            container_port: Be16::new(8080),
            client_port: Be16::new(port),
            protocol: IpProtocol::UDP,
            padding8: 0,
            padding16: 0,
        }
    }

    fn bucket(tags: [u32; WAYS]) -> Bucket {
        Bucket {
            tags,
            ..bytemuck::Zeroable::zeroed()
        }
    }

    #[test]
    fn a_tag_tells_its_way() {
        let tags = [1, 0, 0x8000_0001, 0xffff_ffff, 3, 0, 0x7fff_ffff, 5];
        for (way, tag) in tags.into_iter().enumerate() {
            if tag != 0 {
                assert_eq!(bucket(tags).way_of(tag), way, "{tag:#x}");
            }
        }
        for other in [7, 0x8000_0003, 0x7fff_fffd, 0xffff_fffd, 9] {
            assert_eq!(bucket(tags).way_of(other), NOWHERE, "{other:#x}");
        }
        assert_eq!(bucket([0; WAYS]).way_of(1), NOWHERE);
        assert_eq!(bucket([0; WAYS]).way_of(0), 0);
        assert_eq!(bucket([1, 3, 5, 7, 9, 0, 11, 13]).way_of(0), 5);
        assert!([2, 4, 5, 7].contains(&bucket([1, 3, 0, 7, 0, 0, 11, 0]).way_of(0)));
        assert_eq!(bucket([1; WAYS]).way_of(0), NOWHERE);
    }

    #[test]
    fn kept_flows_are_told_from_others() {
        let mut bucket = bucket([0; WAYS]);
        for way in [1, 2, 7] {
            bucket.set_kept(way, true);
        }
        assert_eq!(bucket.count_kept(), 3);
        let ways = |is_kept| [0, 1, 2, 3, 6, 7].map(|turn| bucket.first_way(turn, is_kept));
        assert_eq!(ways(true), [1, 1, 2, 7, 7, 7]);
        assert_eq!(ways(false), [0, 3, 3, 3, 6, 0]);
        bucket.set_kept(2, false);
        assert!(bucket.is_kept(1) && !bucket.is_kept(2) && bucket.is_kept(7));
        assert_eq!(bucket.count_kept(), 2);
    }

    /// Nobody who does not know the seed can name two flows of one bucket.
    #[test]
    fn ports_do_not_make_up_for_addresses() {
        let place = |client: [u8; 4], port| {
            let key = key(u32::from_be_bytes(client), port);
            Place::of(&key, 0x0123_4567_89ab_cdef, 1 << 20)
        };
        let one = place([203, 0, 113, 7], 5000);
        for other in 1..=u16::MAX {
            let [a, b] = other.to_be_bytes();
            let other = place([203 ^ a, b, 113, 7], 5000 ^ other);
            assert_ne!((one.bucket, one.tag), (other.bucket, other.tag));
        }
    }

    #[test]
    fn flows_spread_over_buckets_and_ways() {
        const BUCKETS: usize = 1024;
        const FLOWS: usize = BUCKETS * WAYS * 4;
        // Clients one after the other, their ports too: what differs lies in few bits.
        for (clients, ports) in [
            (FLOWS as u32, 1),
            (1, FLOWS as u32),
            (256, FLOWS as u32 / 256),
        ] {
            let mut found = vec![0; BUCKETS * WAYS];
            for client in 0..clients {
                for port in 0..ports {
                    let key = key(0x0a00_0000 + client, port as u16);
                    let place = Place::of(&key, 0x1234_5678_9abc_def0, BUCKETS as u32);
                    found[place.bucket as usize * WAYS + place.way] += 1;
                }
            }
            // Poisson's with a mean of 4: more than 20 in one of 8192 has a chance of 1 in 10^5.
            let most = found.iter().max().expect("places");
            let empty = found.iter().filter(|count| **count == 0).count();
            assert!(*most <= 20 && empty < 8192 / 20, "{most}, {empty} empty");
        }
    }
}
