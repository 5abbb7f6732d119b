//! What is to be in force: Docker's publications and the static ones, without conflicts. Pure.
//!
//! Two publications conflict where they share a port of one protocol and address family, on one host
//! address or with either on any address; distinct addresses coexist. A declined publication holds its
//! ports like any other: it is somebody's, though the slow path serves it.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::IpAddr,
};

use crate::publication::{Declined, Protocol, Publication};

/// A publication refused because a port of it is taken. As text, Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// The host address of the refused one.
    pub host_ip: IpAddr,
    /// Its lowest port that is taken.
    pub host_port: u16,
}

impl fmt::Display for Conflict {
    /// `ErrPortAlreadyAllocated` of moby's `libnetwork/portallocator`, which does not put IPv6 in
    /// brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host_ip, host_port } = self;
        write!(
            f,
            "Bind for {host_ip}:{host_port} failed: port is already allocated"
        )
    }
}

impl std::error::Error for Conflict {}

/// Why `new` cannot be added to `existing`, if it cannot.
pub fn conflict(existing: &[Publication], new: &Publication) -> Option<Conflict> {
    let shared = existing
        .iter()
        .filter(|held| holds_ports(held) && held.protocol == new.protocol)
        .filter(|held| meet(held.host_ip, new.host_ip))
        .filter_map(|held| held.host_ports.first_shared(new.host_ports));
    shared.min().map(|host_port| Conflict {
        host_ip: new.host_ip,
        host_port,
    })
}

/// The rows that are to be in force, by port. Docker's come first, as it has really bound its ports:
/// a static one that a container has got in the way of is kept, declined as [`Declined::PortTaken`]
/// until the port is free again. Among equals the earlier one wins.
pub fn desired(docker: &[Publication], statics: &[Publication]) -> Vec<Publication> {
    let mut held = Held::default();
    let mut seen = HashSet::new();
    let mut rows = Vec::with_capacity(docker.len() + statics.len());
    for row in docker.iter().chain(statics) {
        // The same twice, say by --publish and by a publication of an earlier run.
        if !seen.insert(row) {
            continue;
        }
        let mut row = row.clone();
        // Said of it at an earlier time; it is found out anew.
        if row.declined == Some(Declined::PortTaken) {
            row.declined = None;
        }
        if held.has(&row) {
            row.declined = Some(Declined::PortTaken);
        } else {
            held.add(&row);
        }
        rows.push(row);
    }
    rows.sort_by(|a, b| order(a).cmp(&order(b)));
    rows
}

/// A row that lost its port holds none.
fn holds_ports(row: &Publication) -> bool {
    row.declined != Some(Declined::PortTaken)
}

/// Whether a packet could be to both: the same address, or one of them is any of the family.
fn meet(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

fn order(row: &Publication) -> impl Ord + '_ {
    let Publication {
        host_ports,
        protocol,
        host_ip,
        container_ip,
        container_port,
        ..
    } = row;
    (
        *host_ports,
        *protocol,
        *host_ip,
        row.source,
        &row.name,
        *container_ip,
        *container_port,
    )
}

/// The host addresses that hold each port. By port, because thousands of containers with a port each
/// are as likely as one with thousands.
#[derive(Default)]
struct Held(HashMap<(Protocol, bool, u16), Vec<IpAddr>>);

impl Held {
    fn keys(row: &Publication) -> impl Iterator<Item = (Protocol, bool, u16)> + use<> {
        let (protocol, v4) = (row.protocol, row.host_ip.is_ipv4());
        let ports = row.host_ports.first..=row.host_ports.last;
        ports.map(move |port| (protocol, v4, port))
    }

    fn has(&self, row: &Publication) -> bool {
        Self::keys(row)
            .filter_map(|key| self.0.get(&key))
            .flatten()
            .any(|ip| meet(*ip, row.host_ip))
    }

    fn add(&mut self, row: &Publication) {
        for key in Self::keys(row) {
            self.0.entry(key).or_default().push(row.host_ip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{publication::Source, spec::Spec};

    fn fixed(spec: &str) -> Publication {
        Spec::parse(spec).expect("a SPEC")
    }

    fn docker(name: &str, spec: &str) -> Publication {
        Publication {
            source: Source::Docker,
            name: name.to_owned(),
            ..fixed(spec)
        }
    }

    fn shown(rows: &[Publication]) -> Vec<String> {
        let show = |row: &Publication| match row.declined {
            Some(declined) => format!("{row} {declined:?}"),
            None => row.to_string(),
        };
        rows.iter().map(show).collect()
    }

    #[test]
    fn what_conflicts_and_what_coexists() {
        let table = [
            (
                "9000:10.0.0.2:80",
                "9000:10.0.0.3:80",
                Some(("0.0.0.0", 9000)),
            ),
            (
                "9000:10.0.0.2:80",
                "192.0.2.1:9000:10.0.0.3:80",
                Some(("192.0.2.1", 9000)),
            ),
            (
                "192.0.2.1:9000:10.0.0.2:80",
                "9000:10.0.0.3:80",
                Some(("0.0.0.0", 9000)),
            ),
            (
                "127.0.0.1:9000:10.0.0.2:80",
                "9000:10.0.0.3:80",
                Some(("0.0.0.0", 9000)),
            ),
            (
                "192.0.2.1:9000:10.0.0.2:80",
                "192.0.2.1:9000:10.0.0.3:80",
                Some(("192.0.2.1", 9000)),
            ),
            (
                "192.0.2.1:9000:10.0.0.2:80",
                "192.0.2.2:9000:10.0.0.3:80",
                None,
            ),
            ("9000:10.0.0.2:80/udp", "9000:10.0.0.3:80/tcp", None),
            ("9000:10.0.0.2:80", "9000:[fd00::3]:80", None),
            (
                "9000:[fd00::2]:80",
                "[2001:db8::1]:9000:[fd00::3]:80",
                Some(("2001:db8::1", 9000)),
            ),
            ("9000:10.0.0.2:80", "9001:10.0.0.3:80", None),
            (
                "8000-8010:10.0.0.2:8000-8010",
                "8005:10.0.0.3:80",
                Some(("0.0.0.0", 8005)),
            ),
            (
                "8005:10.0.0.2:80",
                "8000-8010:10.0.0.3:8000-8010",
                Some(("0.0.0.0", 8005)),
            ),
            (
                "8005-8020:10.0.0.2:8005-8020",
                "8000-8010:10.0.0.3:8000-8010",
                Some(("0.0.0.0", 8005)),
            ),
            (
                "8000-8010:10.0.0.2:8000-8010",
                "8011-8012:10.0.0.3:80-81",
                None,
            ),
        ];
        for (existing, new, expected) in table {
            let found = conflict(&[fixed(existing)], &fixed(new));
            let expected = expected.map(|(host_ip, host_port)| Conflict {
                host_ip: host_ip.parse().expect("an address"),
                host_port,
            });
            assert_eq!(found, expected, "{existing} and {new}");
        }
    }

    #[test]
    fn a_conflict_names_its_lowest_port_in_dockers_words() {
        let existing = [fixed("8008:10.0.0.2:80"), fixed("8004:10.0.0.2:80")];
        let found = conflict(&existing, &fixed("8000-8010:10.0.0.3:8000-8010"));
        assert_eq!(
            found.map(|it| it.to_string()).as_deref(),
            Some("Bind for 0.0.0.0:8004 failed: port is already allocated")
        );
    }

    #[test]
    fn dockers_rows_win_over_static_ones() {
        let rows = desired(
            &[docker("web", "9000:172.17.0.2:8080")],
            &[
                fixed("192.0.2.1:9000:10.0.0.2:80"),
                fixed("9001:10.0.0.2:81"),
                fixed("8999-9000:10.0.0.2:1-2"),
            ],
        );
        assert_eq!(
            shown(&rows),
            [
                "8999-9000:10.0.0.2:1-2/tcp PortTaken",
                "9000:172.17.0.2:8080/tcp",
                "192.0.2.1:9000:10.0.0.2:80/tcp PortTaken",
                "9001:10.0.0.2:81/tcp",
            ]
        );
        // Once the container has gone, the port is the static one's again.
        let free = desired(&[], &[fixed("192.0.2.1:9000:10.0.0.2:80")]);
        assert_eq!(shown(&free), ["192.0.2.1:9000:10.0.0.2:80/tcp"]);
        // A row that lost its port is nobody's obstacle.
        assert_eq!(conflict(&rows[..1], &fixed("8999:10.0.0.3:80")), None);
    }

    #[test]
    fn the_earlier_static_row_wins_and_the_same_twice_is_one() {
        let rows = desired(
            &[],
            &[
                fixed("9000:10.0.0.2:80"),
                fixed("9000:10.0.0.2:80"),
                fixed("9000:10.0.0.3:80"),
            ],
        );
        assert_eq!(
            shown(&rows),
            ["9000:10.0.0.2:80/tcp", "9000:10.0.0.3:80/tcp PortTaken"]
        );
    }

    #[test]
    fn declined_rows_keep_their_reason_and_their_port() {
        let rows = desired(
            &[docker("web", "127.0.0.1:9000:172.17.0.2:80")],
            &[fixed("9000:10.0.0.2:80"), fixed("80:[fd00::2]:80")],
        );
        assert_eq!(
            shown(&rows),
            [
                "80:[fd00::2]:80/tcp",
                "9000:10.0.0.2:80/tcp PortTaken",
                "127.0.0.1:9000:172.17.0.2:80/tcp Loopback",
            ]
        );
    }

    /// xorshift64: the same rows in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u16) -> u16 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            u16::try_from(self.0 % u64::from(limit)).unwrap_or_default()
        }

        fn row(&mut self) -> Publication {
            let host = ["", "192.0.2.1:", "192.0.2.2:", "127.0.0.1:"][usize::from(self.below(4))];
            let protocol = ["tcp", "udp"][usize::from(self.below(2))];
            let first = 1 + self.below(40);
            let last = first + self.below(5);
            let span = last - first;
            let (container, port) = (2 + self.below(3), 1 + self.below(100));
            let end = port + span;
            fixed(&format!(
                "{host}{first}-{last}:10.0.0.{container}:{port}-{end}/{protocol}"
            ))
        }
    }

    #[test]
    fn of_any_rows_no_two_in_force_share_a_port() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..300 {
            let from_docker: Vec<_> = (0..random.below(12))
                .map(|_| Publication {
                    source: Source::Docker,
                    ..random.row()
                })
                .collect();
            let statics: Vec<_> = (0..random.below(12)).map(|_| random.row()).collect();
            let rows = desired(&from_docker, &statics);
            let (in_force, lost): (Vec<_>, Vec<_>) = rows
                .iter()
                .cloned()
                .partition(|row| row.declined != Some(Declined::PortTaken));
            for (i, row) in in_force.iter().enumerate() {
                assert_eq!(conflict(&in_force[..i], row), None, "{row}");
            }
            for row in &lost {
                assert!(
                    conflict(&in_force, row).is_some(),
                    "{row} lost its port to nobody"
                );
            }
            let everything: HashSet<_> = from_docker.iter().chain(&statics).collect();
            assert_eq!(rows.len(), everything.len());
            assert_eq!(rows, desired(&from_docker, &statics));
        }
    }
}
