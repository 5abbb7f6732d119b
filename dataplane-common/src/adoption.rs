//! Taking over a conversation that the kernel has translated so far.

use crate::{
    bucket::Slot,
    family::Family,
    flow::Flow,
    tables::{Route, TableFull, Tables},
};

/// What has come of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Adoption {
    /// It is a flow now.
    Done = 0,
    /// There is a flow with its key already.
    Known = 1,
    /// It stays on the slow path: its backend is not there, its client is not where it is said to be, or there
    /// is no room.
    Refused = 2,
}

/// Writes a flow that the controller knows all of but the way back to its client, which has to be by the
/// flow's external interface.
#[inline(always)]
pub fn adopt<F: Family, T: Tables<F>>(slot: &mut Slot<F::Address>, tables: &T) -> Adoption {
    let (key, flow) = (&slot.key, &mut slot.flow);
    let (Some(settings), Some(backend)) = (tables.settings(), tables.backend(flow.backend)) else {
        return Adoption::Refused;
    };
    let now = tables.now();
    let is_known = tables.flow(key).is_some_and(|there| {
        tables
            .backend(there.backend)
            .is_some_and(|backend| !there.is_over(backend.generation, &settings.timeouts, now))
    });
    if is_known {
        return Adoption::Known;
    }
    let mut route = Route::to(key.client);
    let is_reached = tables
        .route(
            backend.route_ifindex,
            &key.container,
            &key.client,
            &mut route,
        )
        .is_ok_and(|()| route.ifindex == flow.external_ifindex);
    if F::is_martian(key.client) || !is_reached || !tables.is_local(&flow.host_address) {
        return Adoption::Refused;
    }
    flow.set_route(&route, settings, now);
    flow.marks = Flow::<F::Address>::BEGUN_HERE;
    match tables.insert_flow(key, |there| *there = *flow) {
        Ok(()) => {
            if flow.state().is_proven() {
                tables.establish(key);
            }
            Adoption::Done
        }
        Err(TableFull) => Adoption::Refused,
    }
}
