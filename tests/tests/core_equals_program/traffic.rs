//! Random traffic: packets of a few clients to a few ports and back, so that flows begin, are answered, close
//! and collide; some of them with bytes that no sender would send.

use dataplane_common::{
    headers::{IpProtocol, Mac, TcpFlags},
    testing::{
        buffer::{ETHERNET, NUMBER, Spec},
        world::World,
    },
};
use portway_tests::rig::{
    BOUND_PORT, BRIDGE_MAC, CLIENT_MAC, CONTAINER_MAC, CONTAINER_MTU, CONTAINER_PORT, EXTERNAL_MAC,
    HOST_PORTS, Program, Version,
};

/// Any numbers, the same for the same seed (SplitMix64).
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One below `limit`, which is not zero.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit as u64) as usize
    }

    /// Yes, this many times of a hundred.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// A packet and where it comes in.
#[derive(Debug)]
pub struct Sent {
    /// The program that gets it.
    pub program: Program,
    /// Its bytes.
    pub frame: Vec<u8>,
    /// The bytes of each segment that it stands for, or zero.
    pub segment_size: u32,
}

/// The next packet in a world that has come so far.
pub fn next<V: Version>(random: &mut Random, world: &World<V>) -> Sent {
    let program = random.pick(&[Program::Forward, Program::Forward, Program::Reply]);
    let (spec, macs) = match program {
        Program::Forward => (from_outside::<V>(random), (EXTERNAL_MAC, CLIENT_MAC)),
        Program::Reply => (from_container(random, world), (BRIDGE_MAC, CONTAINER_MAC)),
    };
    let mut frame = frame(spec, macs);
    if spec.protocol == IpProtocol::UDP && random.percent(10) {
        // No checksum, or a wrong one.
        let at = ETHERNET + V::HEADER_LEN + 6;
        let sum = random.pick(&[0, 0, 0xffff, 1]);
        frame[at..at + 2].copy_from_slice(&u16::to_be_bytes(sum));
    }
    if random.percent(25) {
        spoil(random, &mut frame, V::HEADER_LEN);
    }
    let segment_size = if random.percent(5) {
        random.pick(&[1, 1300, 1340, 1360, 1361, 1448, 60_000])
    } else {
        0
    };
    Sent {
        program,
        frame,
        segment_size,
    }
}

fn from_outside<V: Version>(random: &mut Random) -> Spec<V> {
    let others = [V::CLIENT, V::TARGET, V::BESIDE, V::HOSTS[0], V::MARTIANS[0]];
    let client = if random.percent(95) {
        random.pick(&V::CLIENTS)
    } else {
        random.pick(&others)
    };
    let host = match random.below(20) {
        0 => random.pick(&[V::TARGET, V::CLIENTS[3], V::NOT_OURS[0]]),
        1 => V::HOSTS[2],
        number => V::HOSTS[number & 1],
    };
    let port = match random.below(20) {
        0 => 22,
        1..4 => BOUND_PORT,
        number => HOST_PORTS[number & 1],
    };
    Spec {
        source: (client, client_port(random)),
        destination: (host, port),
        ..any(random)
    }
}

fn from_container<V: Version>(random: &mut Random, world: &World<V>) -> Spec<V> {
    let given = world
        .remapped
        .borrow()
        .values()
        .copied()
        .min_by_key(|port| port.get());
    let port = match given {
        Some(port) if random.percent(15) => port.get(),
        _ => client_port(random),
    };
    let (source, source_port) = match random.below(20) {
        0 => (V::BESIDE, CONTAINER_PORT),
        1 => (V::TARGET, CONTAINER_PORT + 1),
        _ => (V::TARGET, CONTAINER_PORT),
    };
    Spec {
        source: (source, source_port),
        destination: (random.pick(&V::CLIENTS), port),
        ..any(random)
    }
}

fn client_port(random: &mut Random) -> u16 {
    random.pick(&[50000, 50001, 5000, 80, 600])
}

/// What does not depend on the direction.
fn any<V: Version>(random: &mut Random) -> Spec<V> {
    const ACK: u8 = TcpFlags::ACK;
    let flags = random.pick(&[
        TcpFlags::SYN,
        TcpFlags::SYN,
        TcpFlags::SYN | ACK,
        ACK,
        ACK,
        ACK | TcpFlags::PSH,
        TcpFlags::FIN | ACK,
        TcpFlags::RST,
    ]);
    let mut number = || {
        let ahead = match random.below(10) {
            0 => random.below(3),
            1 => random.below(1 << 31) << 1,
            _ => 1,
        };
        NUMBER.wrapping_add(ahead as u32).wrapping_sub(1)
    };
    let (sequence, acknowledgement) = (number(), number());
    let small = random.below(40);
    let mtu = CONTAINER_MTU as usize - V::HEADER_LEN;
    Spec {
        protocol: random.pick(&[IpProtocol::TCP, IpProtocol::UDP]),
        source: (V::CLIENTS[0], 0),
        destination: (V::CLIENTS[0], 0),
        flags,
        sequence,
        acknowledgement,
        ttl: match random.below(30) {
            0 => 0,
            1 => 1,
            2 => 2,
            _ => 64,
        },
        payload: match random.below(30) {
            0 => mtu - 8 + random.below(3) - 1,
            1 => mtu - 20 + random.below(3) - 1,
            2 => 1500,
            _ => small,
        },
    }
}

fn frame<V: Version>(spec: Spec<V>, (destination, source): (Mac, Mac)) -> Vec<u8> {
    let mut bytes = spec.build().bytes;
    bytes[..6].copy_from_slice(&destination);
    bytes[6..12].copy_from_slice(&source);
    bytes
}

/// Does to a frame what a bad link, a bad sender or a bad person does.
fn spoil(random: &mut Random, frame: &mut Vec<u8>, header_len: usize) {
    for _ in 0..=random.below(3) {
        // Mostly in the headers.
        let reach = if random.percent(90) {
            frame.len().min(ETHERNET + header_len + 20)
        } else {
            frame.len()
        };
        let at = random.below(reach);
        match random.below(6) {
            0 | 1 => frame[at] ^= 1 << random.below(8),
            2 => frame[at] = random.number() as u8,
            3 => frame[at] = random.pick(&[0, 1, 0x45, 0x60, 0x7f, 0x80, 0xff]),
            4 => frame.truncate(ETHERNET + random.below(frame.len() - ETHERNET + 1)),
            _ => {
                let length = random.below(30);
                frame.extend((0..length).map(|_| random.number() as u8));
            }
        }
        if frame.len() <= ETHERNET {
            return;
        }
    }
}
