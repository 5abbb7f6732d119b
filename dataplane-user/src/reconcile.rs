//! One pass: what is wanted is published, everything else withdrawn, programs are attached where they are
//! needed and nowhere else.
//!
//! Order is what keeps packets on the right way at every moment, also if this process is killed between
//! any two steps: a container's reply program is attached before its port is published, a row is active
//! only when all its slots are written, and a backend is dead before anything else of it is touched.

use std::{
    collections::{BTreeSet, HashMap, HashSet, hash_map::Entry},
    net::IpAddr,
};

use anyhow::Context as _;
use aya::maps::{HashMap as BpfMap, MapData};

use crate::{
    address::Address,
    attach::Hooks,
    dataplane::{Dataplane, entries},
    foreign::note_foreign,
    hooks::{self, Attached, Keep, Preference, Role},
    instance::{Instance, Lock},
    netlink::{Netlink, netdev, network::Network, watch::Interest},
    placement::Placer,
    plan::{Wanted, diff, location_of},
    ports,
    publication::Publication,
    rows::{self, Row, State, Waiting},
    takeover::take_over,
    xdp::{
        choice::{Intake, Mode},
        containers::Containers,
        external::External,
    },
};

/// What happened to a publication, for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is now on the fast path.
    Activated(Publication),
    /// Its container is in another place.
    Moved(Publication),
    /// It is on the slow path, for this reason.
    Held(Publication, State),
    /// It is gone.
    Withdrawn(Publication),
}

impl Event {
    /// What it happened to.
    pub fn publication(&self) -> &Publication {
        match self {
            Self::Activated(publication)
            | Self::Moved(publication)
            | Self::Held(publication, _)
            | Self::Withdrawn(publication) => publication,
        }
    }
}

/// What is to be in force.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// What is to be published.
    pub publications: Vec<Publication>,
    /// The interfaces clients come in by; those that are not there, or whose packets nobody understands,
    /// are passed over.
    pub external: BTreeSet<u32>,
    /// Whether Docker's publications are fresh from Docker.
    pub is_fresh: bool,
}

/// What a pass has done and what it leaves to do.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What happened, in order.
    pub events: Vec<Event>,
    /// What the next pass depends on.
    pub interest: Interest,
    /// Publications that wait for their container.
    pub pending: usize,
}

/// Brings an instance's maps and hooks to what is wanted.
pub struct Reconciler {
    /// The instance.
    pub instance: Instance,
    /// Its maps.
    pub dataplane: Dataplane,
    /// The kernel's network configuration.
    pub netlink: Netlink,
    preference: Preference,
    mode: Mode,
    intake: Intake,
    containers: Containers,
}

impl Reconciler {
    /// For an instance whose maps are `dataplane`.
    pub fn new(instance: Instance, dataplane: Dataplane) -> anyhow::Result<Self> {
        let record = dataplane.read_record()?;
        Ok(Self {
            instance,
            preference: Preference::from_number(record.hook_preference),
            mode: Mode::from_number(record.mode),
            intake: Intake::from_number(record.intake),
            containers: Containers::default(),
            dataplane,
            netlink: Netlink::connect()?,
        })
    }

    /// For an instance that is loaded.
    pub fn open(instance: Instance) -> anyhow::Result<Self> {
        let dataplane = Dataplane::open(&instance)?;
        Self::new(instance, dataplane)
    }

    /// From now on uses this kind of hook, and lets later commands do so too.
    pub fn prefer(&mut self, preference: Preference) -> anyhow::Result<()> {
        self.preference = preference;
        self.dataplane
            .update_record(|record| record.hook_preference = preference as u32)
    }

    /// From now on has containers take frames from XDP by this, and lets later commands do so too.
    pub fn set_intake(&mut self, intake: Intake) -> anyhow::Result<()> {
        self.intake = intake;
        self.dataplane
            .update_record(|record| record.intake = intake as u32)
    }

    /// Whether XDP is wanted.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// From now on wants XDP, or not, and lets later commands do so too.
    pub fn set_mode(&mut self, mode: Mode) -> anyhow::Result<()> {
        if mode != self.mode {
            // Another kind of XDP wants something else of containers. Until they have it, packets take TC's way.
            for row in rows::read(&self.dataplane)? {
                self.dataplane.set_device(row.number, None)?;
            }
        }
        self.mode = mode;
        self.dataplane
            .update_record(|record| record.mode = mode as u32)
    }

    /// Notes, for later commands, whether the external interfaces are those of the default routes.
    pub fn set_follows_default_routes(&mut self, follows: bool) -> anyhow::Result<()> {
        self.dataplane
            .update_record(|record| record.follows_default_routes = follows.into())
    }

    /// Does one pass.
    ///
    /// # Errors
    ///
    /// The kernel refuses a change; what was done until then is whole in itself, and another pass goes on.
    pub async fn reconcile(&mut self, _lock: &Lock, desired: Desired) -> anyhow::Result<Outcome> {
        let network = self.netlink.network().await?;
        self.sync_addresses(&network)?;
        let attached = hooks::attached(&self.dataplane)?;
        let mut keep = Keep::default();
        let mut external = desired.external;
        let framing = |ifindex| network.links.get(&ifindex).and_then(|link| link.framing);
        external.retain(|ifindex| framing(*ifindex).is_some());
        for (ifindex, framing) in external.iter().filter_map(|at| Some((*at, framing(*at)?))) {
            for role in Role::external(framing) {
                self.attach(&attached, ifindex, role).await?;
                keep.insert((role, ifindex));
            }
        }
        self.attach_xdp(&network, &external, &attached, &mut keep)
            .await?;

        let rows = rows::read(&self.dataplane)?;
        let placer = Placer {
            netlink: &self.netlink,
            network: &network,
            rows: &rows,
            is_fresh: desired.is_fresh,
        };
        let (mut wanted, interest) = placer.place(desired.publications).await?;
        self.attach_containers(&attached, &mut wanted, &mut keep)
            .await?;
        let mut outcome = Outcome {
            pending: wanted
                .iter()
                .filter(|wish| matches!(wish.placement, Err(State::Pending(_))))
                .count(),
            interest,
            events: Vec::new(),
        };
        self.bring_about(&network, &rows, wanted, &mut outcome.events)?;

        self.hooks().detach_others(&keep).await?;
        let mut hooks = Hooks {
            instance: &self.instance,
            dataplane: &mut self.dataplane,
            netlink: &self.netlink,
        };
        self.containers
            .sync(&mut hooks, &network, self.intake)
            .await?;
        Ok(outcome)
    }

    /// Notes a publication as pending; the next pass places it.
    pub fn add_row(&mut self, _lock: &Lock, publication: &Publication) -> anyhow::Result<()> {
        let number = self.dataplane.new_number()?;
        let state = State::Pending(Waiting::Silent);
        rows::write(&mut self.dataplane, number, publication, state)
    }

    /// Has every flow look its route up again.
    pub fn advance_epoch(&mut self) -> anyhow::Result<()> {
        self.dataplane
            .update_settings(|settings| settings.epoch = settings.epoch.wrapping_add(1))
    }

    fn sync_addresses(&mut self, network: &Network) -> anyhow::Result<()> {
        let Dataplane { v4, v6, .. } = &mut self.dataplane;
        let v4_changed = sync_local(&mut v4.local, &network.addresses)?;
        let v6_changed = sync_local(&mut v6.local, &network.addresses)?;
        if v4_changed || v6_changed {
            self.advance_epoch()?;
        }
        Ok(())
    }

    /// Attaches XDP's program to external interfaces, where it is the choice.
    async fn attach_xdp(
        &mut self,
        network: &Network,
        interfaces: &BTreeSet<u32>,
        attached: &[Attached],
        keep: &mut Keep,
    ) -> anyhow::Result<()> {
        let features = match self.mode {
            Mode::Tc => None,
            _ => netdev::xdp_features()?,
        };
        let mode = self.mode;
        let mut external = External {
            hooks: self.hooks(),
            network,
            features: features.as_ref(),
            mode,
        };
        external.sync(interfaces, attached, keep).await
    }

    /// Attaches programs wherever a container is. A container whose interface does not take them stays on
    /// the slow path.
    async fn attach_containers(
        &mut self,
        attached: &[Attached],
        wanted: &mut [Wanted],
        keep: &mut Keep,
    ) -> anyhow::Result<()> {
        let mut tried: HashMap<u32, bool> = HashMap::new();
        for wish in wanted {
            let Ok(location) = wish.placement else {
                continue;
            };
            let ifindex = location.ifindex;
            if let Entry::Vacant(entry) = tried.entry(ifindex) {
                let mut result = Ok(());
                for role in Role::CONTAINER {
                    result = match result {
                        Ok(()) => self.attach(attached, ifindex, role).await,
                        failed => failed,
                    };
                }
                if let Err(error) = &result {
                    tracing::warn!("{error:#}");
                }
                entry.insert(result.is_ok());
            }
            if tried[&ifindex] {
                keep.extend(Role::CONTAINER.map(|role| (role, ifindex)));
            } else {
                wish.placement = Err(State::Pending(Waiting::NoHook));
            }
        }
        Ok(())
    }

    async fn attach(
        &mut self,
        attached: &[Attached],
        ifindex: u32,
        role: Role,
    ) -> anyhow::Result<()> {
        let preference = self.preference;
        self.hooks()
            .attach(attached, ifindex, role, preference)
            .await
    }

    fn hooks(&mut self) -> Hooks<'_> {
        Hooks {
            instance: &self.instance,
            dataplane: &mut self.dataplane,
            netlink: &self.netlink,
        }
    }

    /// Does what the rows lack.
    fn bring_about(
        &mut self,
        network: &Network,
        rows: &[Row],
        wanted: Vec<Wanted>,
        events: &mut Vec<Event>,
    ) -> anyhow::Result<()> {
        let row = |number| rows.iter().find(|row| row.number == number);
        let plan = diff(rows, wanted);
        let changed = plan.change.iter().map(|(_, wish)| wish);
        let appearing: Vec<_> = plan
            .add
            .iter()
            .chain(changed)
            .filter(|wish| wish.placement.is_ok())
            .map(|wish| &wish.publication)
            .collect();
        note_foreign(&mut self.dataplane, &appearing, &network.addresses)?;
        // Removals come last: where one publication takes over another's port, the slot goes from the
        // one straight to the other.
        let mut live: Vec<_> = rows.iter().filter(|row| row.is_live()).cloned().collect();
        let mut appeared = Vec::new();
        for wish in plan.add {
            let number = self.dataplane.new_number()?;
            self.settle(number, &wish, None, &mut live, events)?;
            appeared.push(number);
        }
        for (number, wish) in plan.change {
            let old = row(number);
            self.settle(number, &wish, old, &mut live, events)?;
            if old.is_none_or(|row| !row.is_live()) {
                appeared.push(number);
            }
        }
        for number in plan.remove {
            if let Some(row) = row(number) {
                self.retire(row, &mut live)?;
                self.dataplane
                    .rows
                    .remove(&number)
                    .context("cannot remove a row")?;
                events.push(Event::Withdrawn(row.publication.clone()));
            }
        }
        // What is not taken over goes on by the kernel's own path.
        if let Err(error) = take_over(&self.instance, &mut self.dataplane, &live, &appeared) {
            tracing::warn!("cannot take over what is going on: {error:#}");
        }
        Ok(())
    }

    /// Gives a row the placement wanted for it.
    fn settle(
        &mut self,
        number: u32,
        wish: &Wanted,
        old: Option<&Row>,
        live: &mut Vec<Row>,
        events: &mut Vec<Event>,
    ) -> anyhow::Result<()> {
        let publication = &wish.publication;
        match wish.placement {
            Ok(location) => {
                let there = old.filter(|row| row.is_live());
                let stays = there.is_some_and(|row| {
                    let there = location_of(&row.backend);
                    (there.ifindex, there.mac) == (location.ifindex, location.mac)
                });
                let generation = match there {
                    Some(row) if stays => row.backend.generation,
                    _ => self
                        .dataplane
                        .begin_backend(number, publication, &location)?,
                };
                let backend =
                    self.dataplane
                        .write_backend(number, publication, &location, generation)?;
                if there.is_none() {
                    ports::publish(&mut self.dataplane, number, publication)?;
                }
                rows::write(&mut self.dataplane, number, publication, State::Active)?;
                live.retain(|row| row.number != number);
                live.push(Row {
                    number,
                    publication: publication.clone(),
                    state: State::Active,
                    backend,
                });
                if there.is_none() {
                    events.push(Event::Activated(publication.clone()));
                } else if !stays {
                    events.push(Event::Moved(publication.clone()));
                }
            }
            Err(state) => {
                if let Some(row) = old {
                    self.retire(row, live)?;
                }
                rows::write(&mut self.dataplane, number, publication, state)?;
                if old.is_none_or(|row| row.state != state) {
                    events.push(Event::Held(publication.clone(), state));
                }
            }
        }
        Ok(())
    }

    /// Takes a row off the fast path: all its flows end at once, then its ports lead nowhere.
    fn retire(&mut self, row: &Row, live: &mut Vec<Row>) -> anyhow::Result<()> {
        live.retain(|other| other.number != row.number);
        self.dataplane.end_backend(row.number)?;
        ports::unpublish(&mut self.dataplane, row.number, &row.publication, live)
    }
}

/// Writes the host's addresses of one IP version. Returns whether they have changed.
fn sync_local<A: Address>(
    local: &mut BpfMap<MapData, A, u32>,
    addresses: &BTreeSet<IpAddr>,
) -> anyhow::Result<bool> {
    let wanted: HashSet<A> = addresses.iter().copied().filter_map(A::from_ip).collect();
    let there: HashSet<A> = entries(local)?
        .into_iter()
        .map(|(address, _)| address)
        .collect();
    for address in wanted.difference(&there) {
        local
            .insert(address, 1, 0)
            .context("cannot write a local address")?;
    }
    for address in there.difference(&wanted) {
        local
            .remove(address)
            .context("cannot remove a local address")?;
    }
    Ok(wanted != there)
}
