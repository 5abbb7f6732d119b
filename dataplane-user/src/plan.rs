//! From rows and wishes to what has to be done. Pure.

use std::collections::{HashMap, hash_map::Entry};

use dataplane_common::published::Backend;

use crate::{
    netlink::locate::Location,
    publication::Publication,
    rows::{self, Row, State},
};

/// A publication and what is to become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What to publish.
    pub publication: Publication,
    /// To where, or why not.
    pub placement: Result<Location, State>,
}

/// What has to be done about rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Not there yet.
    pub add: Vec<Wanted>,
    /// There, by number, with another placement or name.
    pub change: Vec<(u32, Wanted)>,
    /// No longer wanted, by number.
    pub remove: Vec<u32>,
}

/// Compares rows with wishes. A row stands for a publication that is equal but for name and placement.
pub fn diff(rows: &[Row], wanted: Vec<Wanted>) -> Plan {
    let mut plan = Plan::default();
    let mut by_identity = HashMap::new();
    for row in rows {
        match by_identity.entry(row.publication.identity()) {
            Entry::Vacant(entry) => {
                entry.insert(row);
            }
            Entry::Occupied(_) => plan.remove.push(row.number),
        }
    }
    for wish in wanted {
        match by_identity.remove(&wish.publication.identity()) {
            None => plan.add.push(wish),
            Some(row) if is_as_wanted(row, &wish) => {}
            Some(row) => plan.change.push((row.number, wish)),
        }
    }
    plan.remove
        .extend(by_identity.values().map(|row| row.number));
    plan.remove.sort_unstable();
    plan
}

fn is_as_wanted(row: &Row, wish: &Wanted) -> bool {
    let same_place = match wish.placement {
        Ok(location) => row.is_live() && location_of(&row.backend) == location,
        Err(state) => row.state == state,
    };
    same_place && row.publication.name == rows::kept_name(&wish.publication.name)
}

/// Where a backend is.
pub fn location_of(backend: &Backend) -> Location {
    Location {
        ifindex: backend.ifindex,
        route_ifindex: backend.route_ifindex,
        mac: backend.mac,
        source_mac: backend.source_mac,
        mtu: backend.mtu,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{rows::Waiting, spec::Spec};

    const HERE: Location = Location {
        ifindex: 7,
        route_ifindex: 3,
        mac: [2; 6],
        source_mac: [4; 6],
        mtu: 1500,
    };

    fn wish(spec: &str, placement: Result<Location, State>) -> Wanted {
        Wanted {
            publication: Spec::parse(spec).expect(spec),
            placement,
        }
    }

    fn row(number: u32, spec: &str, state: State, generation: u32) -> Row {
        Row {
            number,
            publication: Spec::parse(spec).expect(spec),
            state,
            backend: Backend {
                generation,
                ifindex: HERE.ifindex,
                route_ifindex: HERE.route_ifindex,
                mac: HERE.mac,
                source_mac: HERE.source_mac,
                mtu: HERE.mtu,
                ..Backend::default()
            },
        }
    }

    #[test]
    fn what_is_as_wanted_is_left_alone() {
        let pending = State::Pending(Waiting::Silent);
        let rows = [
            row(1, "80:10.0.0.2:80", State::Active, 1),
            row(2, "81:10.0.0.2:81", pending, 0),
        ];
        let wanted = vec![
            wish("81:10.0.0.2:81", Err(pending)),
            wish("80:10.0.0.2:80", Ok(HERE)),
        ];
        assert_eq!(diff(&rows, wanted), Plan::default());
    }

    #[test]
    fn another_container_port_or_host_is_another_publication() {
        let rows = [row(1, "80:10.0.0.2:80", State::Active, 1)];
        for spec in [
            "80:10.0.0.3:80",
            "80:10.0.0.2:81",
            "81:10.0.0.2:80",
            "80:10.0.0.2:80/udp",
        ] {
            let wanted = wish(spec, Ok(HERE));
            assert_eq!(
                diff(&rows, vec![wanted.clone()]),
                Plan {
                    add: vec![wanted],
                    change: vec![],
                    remove: vec![1],
                },
                "{spec}"
            );
        }
    }

    #[test]
    fn another_place_or_name_changes_the_row() {
        let rows = [row(1, "80:10.0.0.2:80", State::Active, 1)];
        let moved = Location { ifindex: 8, ..HERE };
        let mut named = wish("80:10.0.0.2:80", Ok(HERE));
        named.publication.name = "web".into();
        for wanted in [
            wish("80:10.0.0.2:80", Ok(moved)),
            wish("80:10.0.0.2:80", Err(State::Pending(Waiting::Silent))),
            named,
        ] {
            assert_eq!(diff(&rows, vec![wanted.clone()]).change, [(1, wanted)]);
        }
    }

    #[test]
    fn what_a_killed_process_left_unfinished_is_done_again() {
        let unfinished = [row(1, "80:10.0.0.2:80", State::Active, 0)];
        let wanted = wish("80:10.0.0.2:80", Ok(HERE));
        assert_eq!(
            diff(&unfinished, vec![wanted.clone()]).change,
            [(1, wanted)]
        );
    }

    #[test]
    fn a_row_that_is_there_twice_goes_once() {
        let rows = [
            row(1, "80:10.0.0.2:80", State::Active, 1),
            row(2, "80:10.0.0.2:80", State::Active, 2),
        ];
        let plan = diff(&rows, vec![wish("80:10.0.0.2:80", Ok(HERE))]);
        assert_eq!(
            (plan.remove, plan.add.len(), plan.change.len()),
            (vec![2], 0, 0)
        );
    }
}
