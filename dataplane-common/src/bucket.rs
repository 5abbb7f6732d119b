//! The table of flows: buckets of eight, so that the usual look-up is one hash, two array indices and one
//! comparison.
//!
//! A flow begins in a ring, where each new one takes the place of the oldest. The ring is written in order, which is
//! as fast as memory gets, and a flood reaches nothing but the ring. A flow that has proved to be real is kept: it
//! moves to a way of its bucket, and stays until it is over. Where all eight are taken it goes to a hash table
//! behind (`SPILLED`), which is asked only for buckets that have ever sent a flow there.
//!
//! A bucket is a cache line. It says by tags which flows are kept in its ways, which lie in an array of slots, eight by
//! eight, and where in the ring those are that have begun in it. Who looks for a flow that is not there touches
//! nothing else. A kept flow has a favourite way, where it mostly is; the way's tag tells if so.

use core::hint::black_box;

use bytemuck::Pod;

use crate::{
    flow::{Flow, FlowKey, address_words},
    headers::{Be32, Ip6},
};

/// Flows in a bucket.
pub const WAYS: usize = 8;

/// No way.
pub const NOWHERE: usize = WAYS;

/// How large a table is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// Its buckets.
    pub buckets: u32,
    /// Places in its ring, a power of two.
    pub ring: u32,
}

/// A flow, in the ring or in a way of a bucket.
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
    /// By way, some bits of the hash of the key of the flow that is kept there; zero for none.
    pub tags: [u16; WAYS],
    /// The last flows that have begun here: in the low bits the place in the ring, which others may have taken since,
    /// in all others some bits of the hash of the key; zero for none.
    pub opening: [u32; WAYS],
    /// How many flows have begun here, which tells whose turn in [`opening`](Self::opening) it is to give way.
    pub opened: u64,
    /// Who changes which flows are kept here holds this lock: [`LOCKED`], else [`SPILLED`] or not, and in the low
    /// bits the way that is next to be looked at whether its flow is over.
    pub lock: u64,
}

/// In [`Bucket::lock`]: somebody is changing the bucket.
pub const LOCKED: u64 = u64::MAX;

/// In [`Bucket::lock`]: a flow of this bucket has gone to the table behind.
pub const SPILLED: u64 = WAYS as u64;

/// Where a flow belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The bucket.
    pub bucket: u32,
    /// Its favourite way there.
    pub way: usize,
    /// Its tag there, not zero.
    pub tag: u16,
    /// Its tag while it is in the ring, not zero, where it is in [`Bucket::opening`].
    pub opening_tag: u32,
    /// The bits of that which are no tag.
    pub ring_mask: u32,
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
    pub fn of<A: Pod>(key: &FlowKey<A>, seed: u64, size: Size) -> Self {
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
        let ring_mask = size.ring - 1;
        Self {
            // The top half, scaled.
            bucket: (((hash >> 32) * u64::from(size.buckets)) >> 32) as u32,
            way: (hash >> 16) as usize % WAYS,
            tag: hash as u16 | 1,
            opening_tag: hash as u32 & !ring_mask | size.ring,
            ring_mask,
        }
    }
}

impl Bucket {
    /// Whether a flow of this bucket has gone to the table behind, or somebody is changing the bucket.
    #[inline(always)]
    pub fn may_have_spilled(&self) -> bool {
        self.lock & SPILLED != 0
    }

    /// A way with this tag, or a free one if it is zero, else [`NOWHERE`]. Without a branch, all eight at once:
    /// the verifier would follow each way by itself.
    #[inline(always)]
    pub fn way_of(&self, tag: u16) -> usize {
        let tag = u64::from(tag) * every(16);
        let tags = bytemuck::cast::<_, [u64; 2]>(self.tags);
        first_zero::<16, 2>(tags.map(|tags| tags ^ tag))
    }

    /// The place in the ring where a flow of this bucket is, if it is opening. Any flow may have taken it since.
    #[inline(always)]
    pub fn place_in_ring(&self, place: Place) -> Option<u32> {
        let way = self.opening_of(place);
        if way == NOWHERE {
            return None;
        }
        Some(self.opening[way % WAYS] & place.ring_mask)
    }

    /// Where in [`opening`](Self::opening) the tag of a flow is, else [`NOWHERE`].
    #[inline(always)]
    pub fn opening_of(&self, place: Place) -> usize {
        let tag = u64::from(place.opening_tag) * every(32);
        let mask = u64::from(!place.ring_mask) * every(32);
        let tags = bytemuck::cast::<_, [u64; 4]>(self.opening);
        first_zero::<32, 4>(tags.map(|tags| (tags ^ tag) & mask))
    }
}

/// A one in each lane of so many bits.
const fn every(bits: u32) -> u64 {
    u64::MAX / ((1 << bits) - 1)
}

/// The bit by which [`first_zero`] says that lane `way` is zero: `4 n` above that of the lane for word `n`.
const fn bit_of(way: u32, bits: u32) -> u32 {
    let lanes = u64::BITS / bits;
    bits * (way % lanes) + 4 * (way / lanes)
}

/// What moves, multiplied by one of the [bits](bit_of), its way to the top three bits.
const fn ways_by_bit(bits: u32) -> u64 {
    let mut ways = 0;
    let mut way = 0;
    while way < WAYS as u32 {
        ways |= (way as u64) << (u64::BITS - 3 - bit_of(way, bits));
        way += 1;
    }
    ways
}

/// The first of the eight lanes of `BITS` bits that is zero, [`NOWHERE`] if none is.
#[inline(always)]
fn first_zero<const BITS: u32, const WORDS: usize>(words: [u64; WORDS]) -> usize {
    let low = every(BITS) * ((1 << (BITS - 1)) - 1);
    let mut found = 0;
    for (n, lanes) in words.into_iter().enumerate() {
        let is_zero = !(((lanes & low) + low) | lanes | low) >> (BITS - 1);
        found |= is_zero << (4 * n);
    }
    let first = found & found.wrapping_neg();
    let is_none = !(found | found.wrapping_neg()) >> 63;
    (first.wrapping_mul(const { ways_by_bit(BITS) }) >> 61 | is_none << 3) as usize
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

    #[test]
    fn a_tag_tells_its_way() {
        let bucket = |tags| Bucket {
            tags,
            ..bytemuck::Zeroable::zeroed()
        };
        let tags = [1, 0, 0x8001, 0xffff, 3, 0, 0x7fff, 5];
        for (way, tag) in tags.into_iter().enumerate() {
            if tag != 0 {
                assert_eq!(bucket(tags).way_of(tag), way, "{tag:#x}");
            }
        }
        for other in [7, 0x8003, 0x7ffd, 0xfffd, 9] {
            assert_eq!(bucket(tags).way_of(other), NOWHERE, "{other:#x}");
        }
        for way in 0..WAYS {
            let mut tags = [1; WAYS];
            tags[way] = 0;
            assert_eq!(bucket(tags).way_of(0), way);
            tags[way] = 0x8000;
            assert_eq!(bucket(tags).way_of(0x8000), way);
        }
        assert_eq!(bucket([0; WAYS]).way_of(1), NOWHERE);
        assert_eq!(bucket([0; WAYS]).way_of(0), 0);
        assert_eq!(bucket([1; WAYS]).way_of(0), NOWHERE);
    }

    #[test]
    fn an_opening_flow_is_found_wherever_it_is_in_the_ring() {
        for ring in [1 << 10, 1 << 16, 1 << 20] {
            let place = |number: u32| Place {
                bucket: 0,
                way: 0,
                tag: 1,
                opening_tag: number * ring,
                ring_mask: ring - 1,
            };
            let last = u32::MAX / ring;
            let mut bucket: Bucket = bytemuck::Zeroable::zeroed();
            assert_eq!(bucket.place_in_ring(place(1)), None);
            for index in [0, 1, ring - 1] {
                let tags = [1, 3, last / 2 + 2, last, 5, last / 2, 7, last - 2];
                bucket.opening = tags.map(|number| (number * ring) | index);
                for (way, number) in tags.into_iter().enumerate() {
                    assert_eq!(bucket.opening_of(place(number)), way, "{number:#x}");
                    assert_eq!(bucket.place_in_ring(place(number)), Some(index));
                }
                for other in [9, last / 2 + 4, last / 2 - 2, last - 4] {
                    assert_eq!(bucket.opening_of(place(other)), NOWHERE, "{other:#x}");
                }
            }
        }
    }

    #[test]
    fn no_tag_is_that_of_none() {
        for port in 0..=u16::MAX {
            let place = Place::of(&key(0x0a00_0001, port), 42, size(1 << 10));
            assert!(place.tag != 0 && place.way < WAYS);
            assert!(place.opening_tag != 0 && place.opening_tag & place.ring_mask == 0);
        }
    }

    fn size(buckets: u32) -> Size {
        Size {
            buckets,
            ring: buckets * 2,
        }
    }

    /// Nobody who does not know the seed can name two flows of one bucket.
    #[test]
    fn ports_do_not_make_up_for_addresses() {
        let place = |client: [u8; 4], port| {
            let key = key(u32::from_be_bytes(client), port);
            Place::of(&key, 0x0123_4567_89ab_cdef, size(1 << 19))
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
                    let place = Place::of(&key, 0x1234_5678_9abc_def0, size(BUCKETS as u32));
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
