//! Answers of real daemons, trimmed to the fields that are read, and the odd ones by hand.

use bollard::models::{EventActor, EventMessage, EventMessageTypeEnum};
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;

#[derive(Deserialize)]
struct Answers {
    containers: Vec<ContainerSummary>,
    networks: Vec<Network>,
}

fn facts(json: Value) -> Facts {
    let Answers {
        containers,
        networks,
    } = serde_json::from_value(json).expect("Docker's JSON");
    Facts {
        containers,
        networks: Networks::new(&networks),
        ..Facts::default()
    }
}

fn fixture(json: &str) -> Facts {
    facts(serde_json::from_str(json).expect("JSON"))
}

fn docker_20_10() -> Facts {
    fixture(include_str!("fixtures/docker-20.10.json"))
}

fn docker_28_5() -> Facts {
    fixture(include_str!("fixtures/docker-28.5.json"))
}

/// The rows as text, with the reason of the declined ones.
fn rows(facts: &Facts, unsettled: &Unsettled) -> Vec<String> {
    let show = |row: &Publication| {
        assert_eq!(row.source, Source::Docker);
        let declined = row
            .declined
            .map(|it| format!(" {it:?}"))
            .unwrap_or_default();
        format!("{} {row}{declined}", row.name)
    };
    publications(facts, unsettled).iter().map(show).collect()
}

/// One running container on the bridge network, with `ports`.
fn one_container(ports: Value) -> Facts {
    facts(json!({
        "containers": [{
            "Id": "c", "Names": ["/other/alias", "/web"], "State": "running", "Ports": ports,
            "NetworkSettings": {"Networks": {"bridge": {
                "NetworkID": "n", "IPAddress": "172.17.0.2", "Gateway": "172.17.0.1"}}}}],
        "networks": [{"Name": "bridge", "Id": "n", "Driver": "bridge"}],
    }))
}

#[test]
fn docker_20_10_shows_its_ports() {
    assert_eq!(
        rows(&docker_20_10(), &Unsettled::default()),
        [
            "four 8090:172.19.0.2:80/tcp",
            "halted 9007:172.17.0.4:80/tcp",
            "one 9000:172.17.0.3:8080/tcp",
            "three 8000-8005:172.18.0.2:8000-8005/tcp",
            "one 5353:172.17.0.3:53/udp",
            "one 127.0.0.1:9001:172.17.0.3:80/tcp Loopback",
            "four [::]:8090:172.19.0.2:80/tcp NoIpv6Address",
            "halted [::]:9007:172.17.0.4:80/tcp NoIpv6Address",
            "one [::]:9000:172.17.0.3:8080/tcp NoIpv6Address",
            "three [::]:8000-8005:172.18.0.2:8000-8005/tcp NoIpv6Address",
            "one [::]:5353:172.17.0.3:53/udp NoIpv6Address",
        ]
    );
}

#[test]
fn podman_4_3_names_networks_instead_of_their_ids() {
    let container = |name: &str, port: u16, networks: Value| {
        json!({"Id": name, "Names": [format!("/{name}")], "State": "running",
            "Ports": [{"PrivatePort": 8080, "PublicPort": port, "Type": "tcp"}],
            "NetworkSettings": {"Networks": networks}})
    };
    let own =
        json!({"own": {"NetworkID": "own", "Gateway": "10.89.0.1", "IPAddress": "10.89.0.2"}});
    let default = json!({"podman": {"NetworkID": "podman", "Gateway": "10.88.0.1", "IPAddress": "10.88.0.2"}});
    let facts = facts(json!({
        "containers": [container("one", 9000, default), container("two", 9200, own)],
        "networks": [
            {"Name": "own", "Id": "90e1c8463dad", "Driver": "bridge"},
            {"Name": "bridge", "Id": "2f259bab93aa", "Driver": "bridge"},
        ],
    }));
    assert!(facts.networks.cover(&facts.containers));
    assert_eq!(
        rows(&facts, &Unsettled::default()),
        ["one 9000:10.88.0.2:8080/tcp", "two 9200:10.89.0.2:8080/tcp",]
    );
}

#[test]
fn docker_28_5_shows_its_ports() {
    let shown = rows(&docker_28_5(), &Unsettled::default());
    for row in [
        "one 9000:172.17.0.2:8080/tcp",
        "three 8000-8005:172.18.0.2:8000-8005/tcp",
        // The first by name, the one with the higher gw-priority, the dual-stack one.
        "four 8090:172.19.0.2:80/tcp",
        "prio 8091:172.18.0.4:80/tcp",
        "dual 8092:172.21.0.2:80/tcp",
        "dual 8092:[fda0:ba0f:5be::2]:80/tcp",
        "dual [::1]:8093:[fda0:ba0f:5be::2]:80/tcp Loopback",
    ] {
        assert!(
            shown.iter().any(|it| it == row),
            "{row} is not in {shown:#?}"
        );
    }
    // Gateway mode routed for IPv4 only: docker-proxy has its IPv6 port, to an address without NAT.
    let routed: Vec<_> = shown.iter().filter(|row| row.starts_with("rtd ")).collect();
    assert_eq!(routed, ["rtd [::]:8094:172.22.0.2:80/tcp Network"]);
    for name in ["host", "none", "inner", "shared", "exposed"] {
        assert!(
            !shown.iter().any(|row| row.starts_with(name)),
            "{name} is in {shown:#?}"
        );
    }
}

#[test]
fn without_rules_for_ipv6_docker_proxy_serves_it() {
    let mut facts = docker_28_5();
    facts.proxies_v6 = true;
    let shown = rows(&facts, &Unsettled::default());
    for row in [
        "dual 8092:172.21.0.2:80/tcp",
        "dual 8092:[fda0:ba0f:5be::2]:80/tcp NoRules",
    ] {
        assert!(
            shown.iter().any(|it| it == row),
            "{row} is not in {shown:#?}"
        );
    }
}

#[test]
fn the_default_route_decides_between_networks() {
    let mut facts = docker_28_5();
    let ids: Vec<String> = ambiguous(&facts.containers, &facts.networks)
        .map(str::to_owned)
        .collect();
    // dual, prio and four; those on a single network need no look at their routes.
    assert_eq!(ids, ["ab9caace67cf", "281b6e507db1", "38919382fb35"]);
    let userb = DefaultRoutes {
        v4: Some(Ipv4Addr::new(172, 18, 0, 1)),
        v6: None,
    };
    facts.routes.insert("38919382fb35".to_owned(), userb);
    let shown = rows(&facts, &Unsettled::default());
    assert!(
        shown.contains(&"four 8090:172.18.0.3:80/tcp".to_owned()),
        "{shown:#?}"
    );
}

#[test]
fn what_an_event_has_ended_is_left_out() {
    let event = |typ, id: &str, action: &str, container: &str| EventMessage {
        typ: Some(typ),
        action: Some(action.to_owned()),
        actor: Some(EventActor {
            id: Some(id.to_owned()),
            attributes: Some(HashMap::from([(
                "container".to_owned(),
                container.to_owned(),
            )])),
        }),
        ..EventMessage::default()
    };
    let mut unsettled = Unsettled::default();
    let one = "da8ec1395791";
    unsettled.note(
        &event(EventMessageTypeEnum::CONTAINER, one, "die", ""),
        false,
    );
    let four = "38919382fb35";
    unsettled.note(
        &event(
            EventMessageTypeEnum::NETWORK,
            "f560350c4e2c",
            "disconnect",
            four,
        ),
        false,
    );
    let shown = rows(&docker_28_5(), &unsettled);
    assert!(
        !shown.iter().any(|row| row.starts_with("one ")),
        "{shown:#?}"
    );
    assert!(
        shown.contains(&"four 8090:172.18.0.3:80/tcp".to_owned()),
        "{shown:#?}"
    );
}

#[test]
fn a_network_unknown_so_far_is_noticed() {
    let facts = docker_28_5();
    assert!(facts.networks.cover(&facts.containers));
    assert!(!Networks::default().cover(&facts.containers));
    assert!(Networks::default().cover(&[]));
}

#[test]
fn ten_thousand_and_one_ports_are_one_row() {
    // In no order, as Docker gives them.
    let ports: Vec<Value> = (0..=10_000)
        .map(|i| 10_000 + (i * 7) % 10_001)
        .map(|p| json!({"IP": "0.0.0.0", "PrivatePort": p, "PublicPort": p, "Type": "udp"}))
        .collect();
    let shown = rows(&one_container(ports.into()), &Unsettled::default());
    assert_eq!(shown, ["web 10000-20000:172.17.0.2:10000-20000/udp"]);
}

#[test]
fn only_what_continues_on_both_sides_is_joined() {
    let port = |ip: &str, public: u16, private: u16, protocol: &str| json!({"IP": ip, "PublicPort": public, "PrivatePort": private, "Type": protocol});
    let shown = rows(
        &one_container(json!([
            port("0.0.0.0", 80, 80, "tcp"),
            port("0.0.0.0", 81, 81, "tcp"),
            port("0.0.0.0", 82, 83, "tcp"),
            port("0.0.0.0", 84, 85, "tcp"),
            port("0.0.0.0", 85, 86, "tcp"),
            port("0.0.0.0", 85, 86, "tcp"),
            port("0.0.0.0", 86, 87, "udp"),
            port("192.0.2.1", 87, 88, "tcp"),
            port("0.0.0.0", 65535, 65535, "tcp"),
        ])),
        &Unsettled::default(),
    );
    assert_eq!(
        shown,
        [
            "web 80-81:172.17.0.2:80-81/tcp",
            "web 82:172.17.0.2:83/tcp",
            "web 84-85:172.17.0.2:85-86/tcp",
            "web 65535:172.17.0.2:65535/tcp",
            "web 86:172.17.0.2:87/udp",
            "web 192.0.2.1:87:172.17.0.2:88/tcp",
        ]
    );
}

#[test]
fn odd_rows_are_understood_or_left_out() {
    let table = [
        // podman and old Dockers leave the address out for "any".
        (
            json!({"PublicPort": 80, "PrivatePort": 80, "Type": "tcp"}),
            "web 80:172.17.0.2:80/tcp",
        ),
        (
            json!({"IP": "", "PublicPort": 80, "PrivatePort": 80, "Type": "udp"}),
            "web 80:172.17.0.2:80/udp",
        ),
        (
            json!({"IP": "::ffff:192.0.2.1", "PublicPort": 80, "PrivatePort": 80, "Type": "tcp"}),
            "web 192.0.2.1:80:172.17.0.2:80/tcp",
        ),
        (
            json!({"IP": "0.0.0.0", "PublicPort": 80, "PrivatePort": 80, "Type": "sctp"}),
            "web 80:172.17.0.2:80/sctp Sctp",
        ),
        (
            json!({"IP": "::1", "PublicPort": 80, "PrivatePort": 80, "Type": "tcp"}),
            "web [::1]:80:172.17.0.2:80/tcp Loopback",
        ),
        // Exposed, not published; routed; no sense.
        (json!({"PrivatePort": 80, "Type": "tcp"}), ""),
        (
            json!({"IP": "0.0.0.0", "PublicPort": 0, "PrivatePort": 80, "Type": "tcp"}),
            "",
        ),
        (
            json!({"IP": "web", "PublicPort": 80, "PrivatePort": 80, "Type": "tcp"}),
            "",
        ),
    ];
    for (port, row) in table {
        let shown = rows(&one_container(json!([port])), &Unsettled::default());
        assert_eq!(shown.join("; "), row, "{port}");
    }
}

#[test]
fn only_nat_bridges_are_accelerated() {
    let port = json!([{"IP": "0.0.0.0", "PublicPort": 80, "PrivatePort": 80, "Type": "tcp"}]);
    let table = [
        (json!({"Id": "n", "Driver": "bridge"}), ""),
        (json!({"Id": "n", "Driver": "overlay"}), " Network"),
        (json!({"Id": "n", "Driver": "macvlan"}), " Network"),
        (
            json!({"Id": "n", "Driver": "bridge", "Internal": true}),
            " Network",
        ),
        (json!({"Id": "m", "Driver": "bridge"}), " Network"),
        (
            json!({"Id": "n", "Driver": "bridge", "Options":
                {"com.docker.network.bridge.gateway_mode_ipv4": "routed"}}),
            " Network",
        ),
        (
            json!({"Id": "n", "Driver": "bridge", "Options":
                {"com.docker.network.bridge.gateway_mode_ipv4": "nat-unprotected",
                 "com.docker.network.bridge.gateway_mode_ipv6": "routed"}}),
            "",
        ),
    ];
    for (network, reason) in table {
        let mut facts = one_container(port.clone());
        let network: Network = serde_json::from_value(network).expect("a network");
        facts.networks = Networks::new(std::slice::from_ref(&network));
        let shown = rows(&facts, &Unsettled::default());
        assert_eq!(
            shown,
            [format!("web 80:172.17.0.2:80/tcp{reason}")],
            "{network:?}"
        );
    }
}
