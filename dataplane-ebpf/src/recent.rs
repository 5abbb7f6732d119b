//! What look-ups have found lately, for each CPU by itself: a client that begins many flows is asked about once a
//! second, not once for each of them.

use dataplane_common::{flow::address_words, reason::Reason, tables::Route};

use crate::{
    clock::seconds,
    maps::{self, FamilyMaps},
};

/// Seconds for which an answer holds, unless addresses or routes are seen to change before.
const LIFETIME: u32 = 1;

/// When something was looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Moment {
    /// [`Settings::epoch`](dataplane_common::settings::Settings::epoch) of that time.
    epoch: u32,
    /// In seconds of the monotonic clock.
    seconds: u32,
}

impl Moment {
    /// What maps begin with: the host was not up yet for a second.
    const NEVER: Self = Self {
        epoch: 0,
        seconds: 0,
    };

    #[inline(always)]
    fn now() -> Self {
        Self {
            epoch: epoch(),
            seconds: seconds(),
        }
    }

    /// Whether what was found at that moment still holds.
    #[inline(always)]
    fn holds_at(self, now: Self) -> bool {
        self.epoch == now.epoch && now.seconds.wrapping_sub(self.seconds) <= LIFETIME
    }
}

/// That of now.
#[inline(always)]
fn epoch() -> u32 {
    maps::SETTINGS.get(0).map_or(0, |settings| settings.epoch)
}

/// An address of the host.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct LastLocal<A> {
    found: Moment,
    address: A,
}

/// Whether the host has this address. A function of its own in the eBPF program, which leaves the stack of the
/// others small.
#[inline(never)]
pub fn is_local<F: FamilyMaps>(address: &F::Address) -> bool {
    let Some(last) = F::last_local().get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the entry is this CPU's own, and programs that use it do not interrupt each other.
    let last = unsafe { &mut *last };
    let now = Moment::now();
    if last.address == *address && last.found.holds_at(now) {
        return true;
    }
    let is_local = F::local().get_ptr(*address).is_some();
    if is_local {
        last.address = *address;
        last.found = now;
    }
    is_local
}

/// The way back to a client.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct KnownRoute<A> {
    found: Moment,
    /// By which interface and from which address it was asked for.
    from: u32,
    container: A,
    client: A,
    /// The answer.
    ifindex: u32,
    next_hop: A,
    mtu: u32,
}

/// Writes the way from `container`, behind interface `from`, to `client`: as it is known, else as `ask` writes
/// it.
#[inline(always)]
pub fn route<F: FamilyMaps>(
    from: u32,
    container: &F::Address,
    client: &F::Address,
    route: &mut Route<F::Address>,
    ask: impl FnOnce(&mut Route<F::Address>) -> Result<(), Reason>,
) -> Result<(), Reason> {
    const SPREAD: u32 = 0x9e37_79b1;
    let words = address_words(client).iter().chain(address_words(container));
    let hash = words.fold(from, |hash, word| (hash ^ word).wrapping_mul(SPREAD));
    let entry = F::routes().get_ptr_mut((hash >> 16) % F::ROUTES);
    // SAFETY: as for `is_local`.
    let known = unsafe { &mut *entry.ok_or(Reason::NoRoute)? };
    let now = Moment::now();
    let is_same_way =
        known.client == *client && known.container == *container && known.from == from;
    if is_same_way && known.found.holds_at(now) {
        *route = Route {
            ifindex: known.ifindex,
            next_hop: known.next_hop,
            mtu: known.mtu as u16,
        };
        return Ok(());
    }
    // In two steps, so that addresses need not be kept on the stack meanwhile.
    known.found = Moment::NEVER;
    known.from = from;
    known.container = *container;
    known.client = *client;
    ask(route)?;
    known.ifindex = route.ifindex;
    known.next_hop = route.next_hop;
    known.mtu = route.mtu.into();
    known.found = now;
    Ok(())
}
