//! Where a TCP connection is: which sequence numbers come next.
//!
//! Conntrack keeps both ends' numbers and windows and lets neither say what does not fit them (`tcp_in_window` in
//! net/netfilter/nf_conntrack_proto_tcp.c). Here it is enough to know what the container says: its segments come
//! in by its own veth pair, which nobody outside can write to, while a client's address anybody can claim. So only
//! the container's two numbers are kept, and a client's segment that would begin or end something counts if it
//! fits them exactly, as the container's own kernel demands of resets (RFC 5961 3.2). Whoever cannot see the
//! connection has to hit one number of 2³².

use crate::headers::TcpFlags;

/// The largest window that TCP can have, in bytes (RFC 7323 2.3): no segment that a container waits for is
/// further ahead.
const MAX_WINDOW: u32 = 1 << 30;

/// What a TCP header says of its segment; all zero for UDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// Control bits.
    pub flags: TcpFlags,
    /// The number of its first byte.
    pub sequence: u32,
    /// The number that its sender expects next, if [`TcpFlags::ACK`] is set.
    pub acknowledgement: u32,
    /// Bytes of payload.
    pub payload: u32,
}

impl Segment {
    /// One that neither begins nor ends anything: its numbers make no difference.
    pub const PLAIN: Self = Self {
        flags: TcpFlags(TcpFlags::ACK),
        sequence: 0,
        acknowledgement: 0,
        payload: 0,
    };

    /// The number behind its last byte; SYN and FIN count as one each.
    #[inline(always)]
    fn end(&self) -> u32 {
        let is_counted = self.flags.any(TcpFlags::SYN | TcpFlags::FIN);
        let length = self.payload.wrapping_add(is_counted.into());
        self.sequence.wrapping_add(length)
    }
}

/// How far a container has come, as it has last said. Zero is for numbers that are not known: the flow has just
/// begun, or has been taken over from the kernel. A connection that comes by that number is for a moment one of
/// which nothing is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Progress {
    /// What it expects of its client (RCV.NXT in RFC 9293 3.3.1): the highest number that it has acknowledged.
    expected: u32,
    /// What it will send (SND.NXT).
    next: u32,
}

/// Whether a client's segment that would begin or end something is one of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Fit {
    /// It is, as far as can be known.
    Exact,
    /// It may be. The container knows, and answers what is not (RFC 5961 3.2).
    Possible,
    /// It is not.
    Impossible,
}

impl Progress {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self {
        expected: 0,
        next: 0,
    };

    /// Takes note of a segment of the container. Not of its resets: a kernel that resets answers with the numbers
    /// of what it resets.
    #[inline(always)]
    pub fn follow(&mut self, segment: Segment) {
        if segment.flags.0 & (TcpFlags::ACK | TcpFlags::SYN | TcpFlags::RST) == TcpFlags::ACK {
            advance(&mut self.expected, segment.acknowledgement);
            advance(&mut self.next, segment.end());
        }
    }

    /// Takes note of the container's answer to a SYN, wherever it begins. Returns whether that is another connection
    /// than the one so far.
    #[inline(always)]
    pub fn begin(&mut self, segment: Segment) -> bool {
        let is_another = segment.acknowledgement != self.expected;
        self.expected = segment.acknowledgement;
        self.next = segment.end();
        is_another
    }

    /// Whether a client's segment belongs to the connection: one that resets it or ends it or, while `is_opening`,
    /// one by which the client proves that it has heard the container's SYN.
    ///
    /// That is so if it is what the container expects next. If data is under way before it, it is further ahead,
    /// but then acknowledges all that the container has sent. If both ends' data is under way, portway cannot tell:
    /// the container's own FIN, or the client's next RST in answer to it, has to do.
    #[inline(always)]
    pub fn fit(
        &self,
        flags: TcpFlags,
        sequence: u32,
        acknowledgement: u32,
        is_opening: bool,
    ) -> Fit {
        let ahead = sequence.wrapping_sub(self.expected);
        let has_heard_all =
            self.next == 0 || flags.any(TcpFlags::ACK) && acknowledgement == self.next;
        let is_next = ahead == 0;
        let is_reset = flags.any(TcpFlags::RST);
        if self.expected == 0 {
            Fit::Exact
        } else if is_reset && ahead > MAX_WINDOW {
            Fit::Impossible
        } else if has_heard_all || is_next && (is_reset || !is_opening) {
            Fit::Exact
        } else {
            Fit::Possible
        }
    }
}

/// Moves a number forward. A segment that another CPU has overtaken, or that is sent again, does not move it back.
#[inline(always)]
fn advance(number: &mut u32, to: u32) {
    // Written only if it changes: the entry's cache line is shared.
    if *number == 0 || number.wrapping_sub(to) > MAX_WINDOW {
        *number = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: u8 = TcpFlags::SYN;
    const ACK: u8 = TcpFlags::ACK;
    const FIN_ACK: u8 = TcpFlags::FIN | TcpFlags::ACK;
    const RST: u8 = TcpFlags::RST;

    /// Numbers in the middle, around the wrap, and around where the sign changes.
    const NUMBERS: [u32; 5] = [7_000, u32::MAX, u32::MAX - 500, 1 << 31, (1 << 31) - 1];

    /// Distances: nothing, little, the most that may be, and what is behind or too far.
    const AHEAD: [u32; 3] = [1, 1460, MAX_WINDOW];
    const ELSEWHERE: [u32; 4] = [u32::MAX, 1 << 31, MAX_WINDOW + 1, u32::MAX - MAX_WINDOW];

    fn segment(flags: u8, sequence: u32, acknowledgement: u32, payload: u32) -> Segment {
        Segment {
            flags: TcpFlags(flags),
            sequence,
            acknowledgement,
            payload,
        }
    }

    /// Of a container that expects `expected` and will send `next`.
    fn progress(expected: u32, next: u32) -> Progress {
        let mut progress = Progress::UNKNOWN;
        progress.follow(segment(ACK, next, expected, 0));
        assert_eq!(progress, Progress { expected, next });
        progress
    }

    /// Calls `with` on a container's progress and on what says how a client's segment fits it, by how far its
    /// sequence number is ahead of what is expected, and its acknowledgement number of what is next.
    fn everywhere(mut with: impl FnMut(&dyn Fn(u8, u32, u32, bool) -> Fit)) {
        for expected in NUMBERS {
            for next in NUMBERS {
                let known = progress(expected, next);
                with(&|flags, ahead, of_next, is_opening| {
                    let sequence = expected.wrapping_add(ahead);
                    let acknowledgement = next.wrapping_add(of_next);
                    known.fit(TcpFlags(flags), sequence, acknowledgement, is_opening)
                });
            }
        }
    }

    #[test]
    fn the_containers_numbers_only_go_forward() {
        for start in NUMBERS {
            let mut known = progress(start, start);
            for (number, payload, end) in [(0, 0, 0), (0, 100, 100), (300, 0, 300), (100, 0, 300)] {
                known.follow(segment(
                    ACK,
                    start.wrapping_add(number),
                    start.wrapping_add(number + payload),
                    payload,
                ));
                let end = start.wrapping_add(end);
                assert_eq!(
                    known,
                    Progress {
                        expected: end,
                        next: end
                    },
                    "{start}"
                );
            }
            // A keep-alive, and what says nothing.
            let before = known;
            known.follow(segment(ACK, known.next.wrapping_sub(1), known.expected, 0));
            known.follow(segment(RST | ACK, 0, 9, 0));
            known.follow(segment(RST, 0, 9, 0));
            known.follow(segment(0, 0, 9, 50));
            assert_eq!(known, before);
        }
    }

    #[test]
    fn a_syn_begins_anywhere_and_syn_and_fin_count() {
        let mut known = progress(5_000, 6_000);
        let syn = segment(SYN | ACK, 5_500, 4_900, 0);
        assert!(known.begin(syn));
        assert_eq!(known, progress(4_900, 5_501));
        assert!(!known.begin(syn), "again");
        known.follow(segment(FIN_ACK, 5_501, 4_900, 10));
        assert_eq!(known, progress(4_900, 5_512));
    }

    #[test]
    fn a_reset_counts_where_the_connection_is() {
        everywhere(|fit| {
            for is_opening in [false, true] {
                for flags in [RST, RST | ACK] {
                    assert_eq!(fit(flags, 0, 5, is_opening), Fit::Exact);
                    for ahead in AHEAD {
                        for of_next in [5, u32::MAX] {
                            assert_eq!(fit(flags, ahead, of_next, is_opening), Fit::Possible);
                        }
                    }
                    for ahead in ELSEWHERE {
                        assert_eq!(fit(flags, ahead, 0, is_opening), Fit::Impossible);
                    }
                }
                // With data under way before it, from one who has heard everything.
                assert_eq!(fit(RST | ACK, 1460, 0, is_opening), Fit::Exact);
                assert_eq!(fit(RST, 1460, 0, is_opening), Fit::Possible, "who knows");
            }
        });
    }

    #[test]
    fn a_fin_counts_where_the_connection_is() {
        everywhere(|fit| {
            assert_eq!(fit(FIN_ACK, 0, 0, false), Fit::Exact);
            for of_next in [1, u32::MAX] {
                assert_eq!(fit(FIN_ACK, 0, of_next, false), Fit::Exact);
                for ahead in AHEAD.into_iter().chain(ELSEWHERE) {
                    assert_eq!(fit(FIN_ACK, ahead, of_next, false), Fit::Possible);
                }
            }
            // With data under way before it, or sent again with it.
            for ahead in [1460, u32::MAX] {
                assert_eq!(fit(FIN_ACK, ahead, 0, false), Fit::Exact);
            }
        });
    }

    #[test]
    fn only_who_has_heard_the_containers_syn_can_tell_its_number() {
        everywhere(|fit| {
            for flags in [ACK, FIN_ACK] {
                assert_eq!(fit(flags, 0, 0, true), Fit::Exact);
                assert_eq!(
                    fit(flags, 1460, 0, true),
                    Fit::Exact,
                    "the first one was lost"
                );
                for of_next in [1, u32::MAX, 1 << 31] {
                    assert_eq!(fit(flags, 0, of_next, true), Fit::Possible);
                }
            }
        });
    }

    #[test]
    fn where_nothing_is_known_anything_counts() {
        for flags in [RST, FIN_ACK, ACK] {
            let fit = Progress::UNKNOWN.fit(TcpFlags(flags), 77, 99, true);
            assert_eq!(fit, Fit::Exact);
        }
    }
}
