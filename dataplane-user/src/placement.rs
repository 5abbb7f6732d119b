//! Where each wanted publication leads to, or why it leads nowhere yet.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use crate::{
    netlink::{
        Netlink,
        locate::{Location, Unreachable, Whereabouts, locate},
        network::{LinkKind, Network},
        watch::Interest,
    },
    plan::{Wanted, location_of},
    publication::{Publication, Source},
    rows::{Refusal, Row, State, Waiting},
};

/// What publications are placed by.
pub struct Placer<'a> {
    /// Whom to ask for routes, and to have probe what is silent.
    pub netlink: &'a Netlink,
    /// The network as it is now.
    pub network: &'a Network,
    /// What is published so far.
    pub rows: &'a [Row],
    /// Whether the wishes are fresh from Docker. If not, a container of Docker's whose interface has gone
    /// may be gone too, and its address may be another's already.
    pub is_fresh: bool,
}

impl Placer<'_> {
    /// Places every publication. Also tells which changes in the network would concern them.
    ///
    /// # Errors
    ///
    /// The kernel does not say where it would route to.
    pub async fn place(&self, wanted: Vec<Publication>) -> anyhow::Result<(Vec<Wanted>, Interest)> {
        let mut interest = Interest::default();
        let mut known = HashMap::new();
        let contested = contested_addresses(&wanted);
        let lost = self.lost();
        let last_locations = self.last_locations();
        let mut placed = Vec::with_capacity(wanted.len());
        for publication in wanted {
            let address = publication.container_ip;
            let placement = match publication.declined {
                Some(declined) => Err(State::Declined(Refusal::Kind(declined))),
                None => {
                    interest.addresses.insert(address);
                    if contested.contains(&address) || lost.contains(&publication.identity()) {
                        Err(State::Pending(Waiting::Gone))
                    } else if let Some(placement) = known.get(&address) {
                        *placement
                    } else {
                        let last = last_locations.get(&address).copied();
                        let placement = self.find(address, last).await?;
                        known.insert(address, placement);
                        placement
                    }
                }
            };
            if let Ok(location) = placement {
                interest.macs.insert(location.mac);
            }
            placed.push(Wanted {
                publication,
                placement,
            });
        }
        Ok((placed, interest))
    }

    /// Docker's publications whose container has gone, as far as the kernel says, and of which Docker has
    /// not said anything since.
    fn lost(&self) -> HashSet<Publication> {
        if self.is_fresh {
            return HashSet::new();
        }
        let rows = self.rows.iter();
        rows.filter(|row| row.publication.source == Source::Docker)
            .filter(|row| {
                row.state == State::Pending(Waiting::Gone)
                    || row.is_live() && !self.is_in_place(&location_of(&row.backend))
            })
            .map(|row| row.publication.identity())
            .collect()
    }

    /// Where containers were when last seen, of those places that still exist.
    fn last_locations(&self) -> HashMap<IpAddr, Location> {
        let live = self.rows.iter().filter(|row| row.is_live());
        live.map(|row| (row.publication.container_ip, location_of(&row.backend)))
            .filter(|(_, location)| self.is_in_place(location))
            .collect()
    }

    async fn find(
        &self,
        address: IpAddr,
        last: Option<Location>,
    ) -> anyhow::Result<Result<Location, State>> {
        let route = self.netlink.route_to(address).await?;
        Ok(match locate(self.network, route, address) {
            Whereabouts::Found(location) => Ok(location),
            Whereabouts::Silent(ifindex, mac) => {
                self.netlink.probe(ifindex, address, mac).await;
                // The kernel forgets a neighbour that nobody talks to by the slow path. That does not
                // move its container, as long as its interface is there.
                last.ok_or(State::Pending(Waiting::Silent))
            }
            Whereabouts::Unreachable(Unreachable::NotVeth) => {
                Err(State::Declined(Refusal::NotVeth))
            }
            Whereabouts::Unreachable(why) => Err(State::Pending(Waiting::Elsewhere(why))),
        })
    }

    /// Whether a container's interface is still where it was.
    fn is_in_place(&self, location: &Location) -> bool {
        self.network
            .links
            .get(&location.ifindex)
            .is_some_and(|link| {
                link.kind == LinkKind::VethToNamespace
                    && link.bridge.unwrap_or(link.index) == location.route_ifindex
            })
    }
}

/// Addresses that Docker has given to two containers, as it seems: one of them is about to go, and until
/// it has, nobody knows which.
fn contested_addresses(wanted: &[Publication]) -> HashSet<IpAddr> {
    let mut owners: HashMap<IpAddr, &str> = HashMap::new();
    let mut contested = HashSet::new();
    let from_docker = wanted
        .iter()
        .filter(|publication| publication.source == Source::Docker);
    for publication in from_docker {
        let address = publication.container_ip;
        if *owners.entry(address).or_insert(&publication.name) != publication.name {
            contested.insert(address);
        }
    }
    contested
}
