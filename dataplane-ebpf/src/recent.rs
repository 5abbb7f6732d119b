//! What look-ups have found lately, for each CPU by itself: a client that begins many flows is asked about once a
//! second, not once for each of them.

use bytemuck::Pod;
use dataplane_common::{flow::address_words, tables::Route};

use crate::{
    kernel::seconds,
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
    fn is_recent(&self) -> bool {
        epoch() == self.epoch && seconds().wrapping_sub(self.seconds) <= LIFETIME
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

/// Whether the host has this address.
#[inline(always)]
pub fn is_local<F: FamilyMaps>(address: &F::Address) -> bool {
    let Some(last) = F::last_local().get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the entry is this CPU's own, and programs that use it do not interrupt each other.
    let last = unsafe { &mut *last };
    if last.address == *address && last.found.is_recent() {
        return true;
    }
    let is_local = F::local().get_ptr(*address).is_some();
    if is_local {
        last.address = *address;
        last.found = Moment::now();
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

impl<A: Pod + PartialEq> KnownRoute<A> {
    /// The entry for the way from `container`, behind interface `from`, to `client`.
    #[inline(always)]
    pub fn entry<F: FamilyMaps<Address = A>>(
        from: u32,
        container: &A,
        client: &A,
    ) -> Option<&'static mut Self> {
        const SPREAD: u32 = 0x9e37_79b1;
        let words = address_words(client).iter().chain(address_words(container));
        let hash = words.fold(from, |hash, word| (hash ^ word).wrapping_mul(SPREAD));
        let entry = F::routes().get_ptr_mut((hash >> 16) % F::ROUTES)?;
        // SAFETY: as for `is_local`.
        Some(unsafe { &mut *entry })
    }

    /// Writes the route, if this is it.
    #[inline(always)]
    pub fn recall(&self, from: u32, container: &A, client: &A, route: &mut Route<A>) -> bool {
        let is_it = self.client == *client
            && self.container == *container
            && self.from == from
            && self.found.is_recent();
        if is_it {
            *route = Route {
                ifindex: self.ifindex,
                next_hop: self.next_hop,
                mtu: self.mtu as u16,
            };
        }
        is_it
    }

    /// Makes room for the way from `container`, behind interface `from`, to `client`.
    #[inline(always)]
    pub fn claim(&mut self, from: u32, container: &A, client: &A) {
        self.found = Moment::NEVER;
        self.from = from;
        self.container = *container;
        self.client = *client;
    }

    /// Keeps the route in mind, by which this way has been found to lead.
    #[inline(always)]
    pub fn note(&mut self, route: &Route<A>) {
        self.ifindex = route.ifindex;
        self.next_hop = route.next_hop;
        self.mtu = route.mtu.into();
        self.found = Moment::now();
    }
}
