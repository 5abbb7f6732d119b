//! What the programs make of a fragment, with the core alone.

use std::collections::HashMap;

use super::{buffer::Buffer, programs::Verdict, sample::Sample, world::World};
use crate::{
    forward::forward,
    fragment::{self, HeldKey, Piece, Step, first_l4},
    packet::{Packet as _, WriteFault},
    reason::Reason,
    reply::reply,
    rewrite,
    tables::Tables as _,
};

/// Which hook a fragment comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// That of the external interface with this index.
    External(u32),
    /// That of the host veth with this index.
    Veth(u32),
}

/// Copies of fragments that came before their datagram's first one.
pub type HeldPieces<F, const L3: usize> =
    HashMap<HeldKey<<F as crate::family::Family>::Address>, Buffer<L3>>;

/// What becomes of a fragment, and after it of those that were held for it.
pub fn run_fragment<F: Sample, const L3: usize>(
    world: &World<F>,
    held: &mut HeldPieces<F, L3>,
    packet: &Buffer<L3>,
    hook: Hook,
) -> Vec<(Verdict, Buffer<L3>)> {
    let left = |reason| vec![(Verdict::Passed(reason), packet.clone())];
    let (Hook::External(ingress) | Hook::Veth(ingress)) = hook;
    let Ok(piece) = fragment::piece::<F, _, _>(packet, world, ingress) else {
        return left(Reason::Fragment);
    };
    let is_outside = matches!(hook, Hook::External(_));
    if is_outside && !packet.is_to_host() {
        return left(Reason::Fragment);
    }
    if !piece.is_first() {
        let is_ours_to_hold = || !is_outside || world.is_local(&piece.network.destination);
        return match fragment::follow::<F, _>(world, &piece, is_ours_to_hold) {
            Step::Pass => left(Reason::Fragment),
            Step::Send => vec![send(world, packet, &piece, hook)],
            Step::Hold(index) => {
                let key = HeldKey {
                    datagram: piece.key(),
                    index,
                };
                held.insert(key, packet.clone());
                fragment::hold::<F, _>(world, &piece, index);
                left(Reason::Fragment)
            }
        };
    }
    if begin(world, packet, &piece, hook).is_err() {
        fragment::leave::<F, _>(world, &piece);
        return left(Reason::Fragment);
    }
    let datagram = piece.key();
    let count = fragment::held::<F, _>(world, &datagram);
    let early = (0..count).filter_map(|index| held.remove(&HeldKey { datagram, index }));
    let early: Vec<_> = early.collect();
    if early.len() != count as usize {
        fragment::leave::<F, _>(world, &piece);
        return left(Reason::Fragment);
    }
    let mut sent = vec![send(world, packet, &piece, hook)];
    for packet in early {
        sent.extend(run_fragment(world, held, &packet, hook));
    }
    sent
}

fn begin<F: Sample, const L3: usize>(
    world: &World<F>,
    packet: &Buffer<L3>,
    piece: &Piece<F::Address>,
    hook: Hook,
) -> Result<(), Reason> {
    let parsed = fragment::parse_first::<F, _>(packet, piece)?;
    match hook {
        Hook::External(ingress) => {
            let forward = forward(packet, &parsed, world, ingress)?;
            fragment::begin_forward(world, piece, &parsed, forward.ports.source)
        }
        Hook::Veth(ingress) => {
            let reply = reply(packet, &parsed, world, ingress)?;
            fragment::begin_reply(world, piece, &parsed, reply.mtu)
        }
    }
}

fn send<F: Sample, const L3: usize>(
    world: &World<F>,
    packet: &Buffer<L3>,
    piece: &Piece<F::Address>,
    hook: Hook,
) -> (Verdict, Buffer<L3>) {
    let mut sent = packet.clone();
    let parsed = piece.is_first().then(|| {
        fragment::parse_first::<F, _>(packet, piece).expect("the datagram has been decided on")
    });
    let l4 = first_l4::<F, Buffer<L3>>();
    let decided = match hook {
        Hook::External(_) => fragment::to_container::<F, _>(world, piece).map(|forward| {
            let written = match &parsed {
                Some(parsed) => rewrite::to_container(&mut sent, parsed, l4, &forward),
                None => rewrite::piece_to_container::<F, _>(&mut sent, piece, &forward),
            };
            (Verdict::Forwarded(forward.ifindex), written)
        }),
        Hook::Veth(_) => fragment::to_client::<F, _>(world, piece).map(|reply| {
            let written = match &parsed {
                Some(parsed) => rewrite::to_client(&mut sent, parsed, l4, &reply),
                None => rewrite::piece_to_client::<F, _>(&mut sent, piece, &reply),
            };
            (Verdict::Replied(reply.ifindex), written)
        }),
    };
    let verdict = match decided {
        Ok((verdict, Ok(()))) => verdict,
        Ok((_, Err(WriteFault))) => Verdict::Dropped,
        Err(reason) => Verdict::Passed(reason),
    };
    (verdict, sent)
}
