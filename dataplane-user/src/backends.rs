//! Backends, and the numbers they share with rows.

use anyhow::{Context as _, bail};
use dataplane_common::{
    layout::MAX_BACKENDS,
    published::{Backend, Traffic},
};

use crate::{
    address,
    dataplane::Dataplane,
    netlink::locate::Location,
    publication::Publication,
    rows::{self, State, Waiting},
};

impl Dataplane {
    /// Ends all flows of a backend: their generation is no longer its. XDP does not reach it any more, either,
    /// until it is let to where the backend is next.
    pub fn end_backend(&mut self, number: u32) -> anyhow::Result<()> {
        let mut backend = self.backends.get(&number, 0)?;
        backend.generation = 0;
        self.backends
            .set(number, backend, 0)
            .context("cannot write a backend")?;
        self.set_device(number, None)
    }

    /// Prepares a backend for another place: dead, but complete. Returns the generation by which it is to
    /// come alive.
    pub fn begin_backend(
        &mut self,
        number: u32,
        publication: &Publication,
        location: &Location,
    ) -> anyhow::Result<u32> {
        self.end_backend(number)?;
        let mut generation = 0;
        self.update_record(|record| {
            record.last_generation = record.last_generation.wrapping_add(1).max(1);
            generation = record.last_generation;
        })?;
        // Until its slots are written the row is not active, so that a process killed meanwhile is found
        // out by the next.
        let unfinished = State::Pending(Waiting::Silent);
        rows::write(self, number, publication, unfinished)?;
        self.write_backend(number, publication, location, 0)?;
        Ok(generation)
    }

    /// Writes a backend as it is from now on.
    pub fn write_backend(
        &mut self,
        number: u32,
        publication: &Publication,
        location: &Location,
        generation: u32,
    ) -> anyhow::Result<Backend> {
        let backend = Backend {
            generation,
            ifindex: location.ifindex,
            route_ifindex: location.route_ifindex,
            mtu: location.mtu,
            address: address::words(publication.container_ip),
            mac: location.mac,
            source_mac: location.source_mac,
            reserved: 0,
        };
        self.backends
            .set(number, backend, 0)
            .context("cannot write a backend")?;
        Ok(backend)
    }

    /// A row number nobody uses, the one after the last given where possible, with its counters at zero.
    pub fn new_number(&mut self) -> anyhow::Result<u32> {
        let start = self.read_record()?.last_row;
        let free = (0..MAX_BACKENDS - 1)
            .map(|step| (start + step) % (MAX_BACKENDS - 1) + 1)
            .find(|number| self.rows.get(number, 0).is_err());
        let Some(number) = free else {
            bail!(
                "no room for another publication: {} are there already",
                MAX_BACKENDS - 1
            );
        };
        self.update_record(|record| record.last_row = number)?;
        let cpus = self.traffic.get(&number, 0)?.len();
        let zero = vec![Traffic::default(); cpus].try_into()?;
        self.traffic
            .set(number, zero, 0)
            .context("cannot reset a row's counters")?;
        Ok(number)
    }
}
