//! Any bytes as a sequence of things that happen to the core, and what has to hold whatever happens.

use super::{
    buffer::{Buffer, ETHERNET, NUMBER, Spec},
    programs::{Verdict, run_forward, run_reply},
    sample::Sample,
    world::{CONTAINER_PORT, EXTERNAL, HOST_PORT, VETH, World},
};
use crate::{
    family::Network,
    foreign::observe_outgoing,
    headers::{Be16, IpProtocol},
    lease::{admit_forward, admit_reply},
    packet::Packet as _,
    parse::{l4, parse},
    sequence::Progress,
    settings::Admission,
    tables::Tables as _,
};

/// Plays what `bytes` say.
///
/// # Panics
/// If what has to hold does not: what passes is untouched, and only packets to or from published ports are
/// translated, as a translation has to be.
pub fn play<F: Sample>(bytes: &[u8]) {
    let mut script = Script(bytes);
    let mut world = World::<F>::new();
    world.publish(IpProtocol::TCP, HOST_PORT + 1, 1, CONTAINER_PORT);
    world.publish(IpProtocol::UDP, HOST_PORT + 1, 1, CONTAINER_PORT);
    while !script.0.is_empty() {
        happen(&mut world, &mut script);
    }
}

/// The bytes still to be played; zeros follow.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }
}

fn happen<F: Sample>(world: &mut World<F>, script: &mut Script<'_>) {
    match script.byte() % 16 {
        0..6 => check_forward(world, from_outside::<F>(script)),
        6..10 => check_reply(world, from_container::<F>(script)),
        10 => {
            let length = usize::from(script.byte());
            let packet = Buffer::new(script.bytes(length));
            check_forward(world, packet.clone());
            check_reply(world, packet);
        }
        11 => world.wait_millis(1 << (script.byte() % 20)),
        12 => {
            let admissions = [Admission::Direct, Admission::Netfilter, Admission::Off];
            world.set_admission(script.pick(&admissions));
        }
        13 => admit_forward::<F, _, _>(&from_outside::<F>(script), world, VETH),
        14 => {
            let packet = from_container::<F>(script);
            admit_reply::<F, _, _>(&packet, world, EXTERNAL);
            observe_outgoing::<F, _, _>(&packet, world);
        }
        _ => {
            let generation = u32::from(script.byte() % 3);
            let backend = world.backends.get_mut(&1).expect("the backend");
            backend.generation = generation;
            world.settings.epoch += 1;
        }
    }
}

fn from_outside<F: Sample>(script: &mut Script<'_>) -> Buffer {
    let sources = [
        F::CLIENT,
        F::CLIENT,
        F::GATEWAY,
        F::UNROUTABLE,
        F::MARTIANS[0],
    ];
    let destinations = [
        F::HOST,
        F::HOST,
        F::SECOND_HOST,
        F::CONTAINER,
        F::NOT_OURS[0],
    ];
    let spec = Spec {
        source: (script.pick(&sources), script.pick(&[5000, 5001, 80])),
        destination: (
            script.pick(&destinations),
            script.pick(&[HOST_PORT, HOST_PORT + 1, CONTAINER_PORT, 22]),
        ),
        ..any::<F>(script)
    };
    edited(spec, script)
}

fn from_container<F: Sample>(script: &mut Script<'_>) -> Buffer {
    let spec = Spec {
        source: (
            script.pick(&[F::CONTAINER, F::CONTAINER, F::HOST, F::NEIGHBOUR]),
            script.pick(&[CONTAINER_PORT, HOST_PORT]),
        ),
        destination: (
            script.pick(&[F::CLIENT, F::CLIENT, F::UNROUTABLE]),
            script.pick(&[5000, 5001, 80, 1024, 600]),
        ),
        ..any::<F>(script)
    };
    edited(spec, script)
}

/// What does not depend on the direction.
fn any<F: Sample>(script: &mut Script<'_>) -> Spec<F> {
    Spec {
        protocol: script.pick(&[IpProtocol::TCP, IpProtocol::UDP]),
        source: (F::CLIENT, 0),
        destination: (F::CLIENT, 0),
        flags: script.byte(),
        sequence: number(script),
        acknowledgement: number(script),
        ttl: script.pick(&[64, 64, 64, 2, 1, 0]),
        payload: script.pick(&[0, 1, 32, 1440, 1452, 1472, 1473, 3000]),
    }
}

/// A number of a TCP connection: most often where all are, else close to it, or far away.
fn number(script: &mut Script<'_>) -> u32 {
    script
        .pick(&[0, 0, 0, 1, u32::MAX, 1440, 1 << 31])
        .wrapping_add(NUMBER)
}

/// The packet with some of its bytes changed, or cut short.
fn edited<F: Sample>(spec: Spec<F>, script: &mut Script<'_>) -> Buffer {
    let mut packet = spec.build();
    let how = script.byte();
    for _ in 0..how % 4 {
        let at = usize::from(script.byte());
        let value = script.byte();
        if let Some(byte) = packet.bytes.get_mut(at) {
            *byte = value;
        }
    }
    if how & 0xf0 == 0xf0 {
        packet.bytes.truncate(usize::from(script.byte()));
    }
    packet.is_to_host = how & 0x30 != 0x10;
    packet.segment_size = if how & 0x0c == 0x0c { 1400 } else { 0 };
    packet.tag = (how & 0xc0 == 0x40).then(|| u16::from(script.byte() & 1) | 0x2000);
    packet
}

fn check_forward<F: Sample>(world: &World<F>, before: Buffer) {
    let mut after = before.clone();
    let flows_before = world.all_flows();
    let verdict = run_forward(world, &mut after, EXTERNAL);
    for (key, flow) in world.all_flows() {
        let is_as_before = flows_before
            .get(&key)
            .is_some_and(|before| before.progress == flow.progress);
        assert!(
            is_as_before || flow.progress == Progress::UNKNOWN,
            "only its container says where a connection is"
        );
    }
    match verdict {
        Verdict::Passed(_) => assert_eq!(after, before, "what passes is not touched"),
        Verdict::Forwarded(ifindex) => {
            let (old, new) = check_translation::<F>(&before, &after);
            assert_eq!(ifindex, VETH);
            assert!(before.is_to_host, "only the host's frames");
            assert_ne!(world.settings.admission, Admission::Off as u32);
            let port = Be16::new(before.ports::<F>().1);
            assert!(world.is_local(&old.destination), "only to the host");
            let slot = world.port(old.protocol, port);
            assert_eq!(slot.backend(), 1, "only to what is published");
            assert_eq!(new.destination, F::CONTAINER);
            assert_eq!(after.ports::<F>().1, CONTAINER_PORT);
            assert_eq!(new.source, old.source, "clients keep their address");
            assert_ne!(after.ports::<F>().0, 0);
            assert!(!F::is_martian(old.source));
            assert_ne!(world.backends[&1].generation, 0, "no packet to the dead");
        }
        Verdict::ErrorForwarded(ifindex) => check_error(ifindex, VETH, &before, &after),
        other => panic!("{other:?}"),
    }
}

fn check_reply<F: Sample>(world: &World<F>, before: Buffer) {
    let mut after = before.clone();
    match run_reply(world, &mut after, VETH) {
        Verdict::Passed(_) => assert_eq!(after, before, "what passes is not touched"),
        Verdict::Replied(ifindex) => {
            let (old, new) = check_translation::<F>(&before, &after);
            assert_eq!(ifindex, EXTERNAL);
            assert_eq!(old.source, F::CONTAINER, "only from the container");
            assert_eq!(before.ports::<F>().0, CONTAINER_PORT);
            assert!(world.is_local(&new.source), "as from the host");
            let port = Be16::new(after.ports::<F>().0);
            assert_eq!(world.port(old.protocol, port).backend(), 1);
            assert_eq!(new.destination, old.destination);
            assert_eq!(after.bytes[..ETHERNET], before.bytes[..ETHERNET]);
        }
        Verdict::ErrorReplied(ifindex) => check_error(ifindex, EXTERNAL, &before, &after),
        other => panic!("{other:?}"),
    }
}

/// What holds of a translated ICMP error; its own cases say more.
fn check_error(ifindex: u32, expected: u32, before: &Buffer, after: &Buffer) {
    assert_eq!(ifindex, expected);
    assert_eq!(after.bytes.len(), before.bytes.len());
    assert_eq!(before.vlan_id(), 0);
}

/// What holds of every translation, whatever its direction. Returns the headers before and after.
fn check_translation<F: Sample>(
    before: &Buffer,
    after: &Buffer,
) -> (Network<F::Address>, Network<F::Address>) {
    let old = parse::<F, _>(before).expect("only what is whole is translated");
    let new = parse::<F, _>(after).expect("and stays so");
    assert_eq!(new.network.ttl + 1, old.network.ttl, "one hop");
    assert!(new.network.ttl > 0, "none is forwarded that has none left");
    assert_eq!(new.network.length, old.network.length);
    assert_eq!(new.flags, old.flags);
    assert_eq!(new.network.protocol, old.network.protocol);
    assert_eq!(before.vlan_id(), 0);
    assert_eq!(after.tag, None, "no tag goes along");
    assert_eq!(after.bytes.len(), before.bytes.len());
    let payload = l4::<F, Buffer>() + if old.is_tcp() { 20 } else { 8 };
    assert_eq!(after.bytes[payload..], before.bytes[payload..]);
    if before.has_valid_checksums::<F>() {
        assert!(after.has_valid_checksums::<F>(), "checksums stay right");
    }
    (old.network, new.network)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{V4, V6};

    #[test]
    fn whatever_happens() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_ne_bytes()
        };
        for _ in 0..500 {
            let script: Vec<u8> = (0..100).flat_map(|_| random()).collect();
            play::<V4>(&script);
            play::<V6>(&script);
        }
    }
}
