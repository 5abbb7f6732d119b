//! Rulesets of Docker at work (20.10, 26.1, 28.5, captured), by the known layouts of others (28.0.0,
//! 29), of podman (4.3, 5.4, captured), and with what people and their firewalls add.

use super::*;

const DOCKER_20_10: &str = include_str!("fixtures/docker-20.10.v4");
const DOCKER_20_10_NFT: &str = include_str!("fixtures/docker-20.10.nft");
/// One network with IPv6 and one without.
const DOCKER_20_10_V6: &str = include_str!("fixtures/docker-20.10.v6");
/// Without docker-proxy and with --icc=false, by iptables-legacy.
const DOCKER_20_10_LEGACY: &str = include_str!("fixtures/docker-20.10-legacy.v4");
const DOCKER_26_1: &str = include_str!("fixtures/docker-26.1.v4");
const DOCKER_26_1_NFT: &str = include_str!("fixtures/docker-26.1.nft");
/// With Swarm.
const DOCKER_28_0_0: &str = include_str!("fixtures/docker-28.0.0.v4");
const DOCKER_28_5: &str = include_str!("fixtures/docker-28.5.v4");
const DOCKER_28_5_V6: &str = include_str!("fixtures/docker-28.5.v6");
const DOCKER_28_5_NFT: &str = include_str!("fixtures/docker-28.5.nft");
const DOCKER_29: &str = include_str!("fixtures/docker-29.v4");
const DOCKER_29_NFT: &str = include_str!("fixtures/docker-29.nft");

/// Without docker-proxy: networks with IPv6, without it, internal, and without communication between containers. As nft
/// lists them, as iptables and as ip6tables save them.
const WITHOUT_PROXY: [(&str, [&str; 3]); 3] = [
    (
        "20.10",
        [
            include_str!("fixtures/docker-20.10-without-proxy.nft"),
            include_str!("fixtures/docker-20.10-without-proxy.v4"),
            include_str!("fixtures/docker-20.10-without-proxy.v6"),
        ],
    ),
    (
        "26.1",
        [
            include_str!("fixtures/docker-26.1-without-proxy.nft"),
            include_str!("fixtures/docker-26.1-without-proxy.v4"),
            include_str!("fixtures/docker-26.1-without-proxy.v6"),
        ],
    ),
    (
        "28.5",
        [
            include_str!("fixtures/docker-28.5-without-proxy.nft"),
            include_str!("fixtures/docker-28.5-without-proxy.v4"),
            include_str!("fixtures/docker-28.5-without-proxy.v6"),
        ],
    ),
];

/// By netavark's iptables driver.
const PODMAN_4_3: &str = include_str!("fixtures/podman-4.3.v4");
/// By netavark's nftables driver.
const PODMAN_5_4: &str = include_str!("fixtures/podman-5.4.nft");

const ALL_IPTABLES: [(&str, &str); 6] = [
    ("20.10", DOCKER_20_10),
    ("20.10 legacy", DOCKER_20_10_LEGACY),
    ("26.1", DOCKER_26_1),
    ("28.0.0", DOCKER_28_0_0),
    ("28.5", DOCKER_28_5),
    ("29", DOCKER_29),
];

/// An empty filter table, as `iptables -L` leaves it behind.
const EMPTY: &str =
    "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";

fn nft(text: &str) -> Rulesets {
    Rulesets {
        nft: Source::Text(text.to_owned()),
        xtables_nft: Source::Absent,
        xtables_legacy: Source::Absent,
    }
}

fn legacy(text: &str) -> Rulesets {
    Rulesets {
        xtables_legacy: Source::Text(text.to_owned()),
        ..nft("")
    }
}

fn both(nft_text: &str, xtables: &str) -> Rulesets {
    Rulesets {
        xtables_nft: Source::Text(xtables.to_owned()),
        ..nft(nft_text)
    }
}

fn foreign(why: &str) -> Verdict {
    Verdict::Foreign(why.to_owned())
}

/// `ruleset` with a rule put in front of a chain's, as `iptables -I` does.
fn insert(ruleset: &str, table: &str, rule: &str) -> String {
    let table = ruleset.find(&format!("*{table}\n")).expect("the table");
    let end = table + ruleset[table..].find("COMMIT").expect("its end");
    let chain = rule.split(' ').nth(1).expect("a chain");
    let first = ruleset[table..end]
        .find(&format!("-A {chain} "))
        .map_or(end, |at| table + at);
    format!("{}{rule}\n{}", &ruleset[..first], &ruleset[first..])
}

#[test]
fn dockers_own_rules_are_known_in_every_version() {
    for (version, rules) in ALL_IPTABLES {
        assert_eq!(
            judge(Family::V4, &legacy(rules)),
            Verdict::DockerOnly,
            "{version}"
        );
    }
    for rules in [DOCKER_20_10_V6, DOCKER_28_5_V6] {
        assert_eq!(judge(Family::V6, &legacy(rules)), Verdict::DockerOnly);
    }
    for (list, rules) in [
        (DOCKER_20_10_NFT, DOCKER_20_10),
        (DOCKER_26_1_NFT, DOCKER_26_1),
        (DOCKER_28_5_NFT, DOCKER_28_5),
    ] {
        assert_eq!(judge(Family::V4, &both(list, rules)), Verdict::DockerOnly);
    }
    assert_eq!(
        judge(Family::V6, &both(DOCKER_28_5_NFT, DOCKER_28_5_V6)),
        Verdict::DockerOnly
    );
    assert_eq!(judge(Family::V4, &nft(DOCKER_29_NFT)), Verdict::DockerOnly);
}

#[test]
fn so_are_those_of_a_docker_without_its_proxy() {
    for (version, [list, v4, v6]) in WITHOUT_PROXY {
        for (family, rules) in [(Family::V4, v4), (Family::V6, v6)] {
            for rulesets in [both(list, rules), legacy(rules)] {
                let verdict = judge(family, &rulesets);
                assert_eq!(verdict, Verdict::DockerOnly, "{version} {family:?}");
            }
            assert_eq!(translates(family, &both(list, rules)), Some(true));
        }
    }
}

/// Its containers may answer by another network than the one that is published on, so the kernel has to admit.
#[test]
fn podmans_rules_are_not_dockers() {
    for rulesets in [nft(PODMAN_5_4), legacy(PODMAN_4_3)] {
        assert!(!judge(Family::V4, &rulesets).allows_direct());
        assert_eq!(translates(Family::V4, &rulesets), Some(true));
    }
}

#[test]
fn dockers_rules_without_an_ipv6_network_are_no_obstacle() {
    let without = "*filter\n:FORWARD DROP [0:0]\n:DOCKER - [0:0]\n:DOCKER-FORWARD - [0:0]\n\
                   :DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER-FORWARD\n\
                   COMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n\
                   -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\nCOMMIT\n";
    assert_eq!(judge(Family::V6, &legacy(without)), Verdict::DockerOnly);
    // A rule with the shape of one half of an isolation is not Docker's.
    let half = without.replace(
        "-A FORWARD -j DOCKER-FORWARD\n",
        "-A FORWARD -j DOCKER-FORWARD\n-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-2\n\
         -A DOCKER-ISOLATION-STAGE-2 -o eth1 -j DROP\n",
    );
    assert!(!judge(Family::V6, &legacy(&half)).allows_direct());
}

#[test]
fn docker_translates_where_it_has_rules() {
    for (family, rulesets, expected) in [
        (Family::V4, both(DOCKER_20_10_NFT, DOCKER_20_10), true),
        (Family::V6, both(DOCKER_20_10_NFT, ""), false),
        (Family::V6, both(DOCKER_28_5_NFT, DOCKER_28_5_V6), true),
        (Family::V6, legacy(DOCKER_28_5_V6), true),
        (Family::V6, legacy(EMPTY), false),
        (Family::V4, nft(DOCKER_29_NFT), true),
        (Family::V6, nft(DOCKER_29_NFT), false),
        (Family::V6, nft(""), false),
    ] {
        assert_eq!(
            translates(family, &rulesets),
            Some(expected),
            "{rulesets:?}"
        );
    }
    let unknown = Rulesets {
        nft: Source::Unreadable("the nft command is missing".to_owned()),
        ..nft("")
    };
    assert_eq!(translates(Family::V6, &unknown), None);
}

#[test]
fn both_ip_versions_have_a_say() {
    let foreign_v6 = || foreign("DOCKER-USER has rules");
    let unknown = || Verdict::Unverifiable("nft failed".to_owned());
    let table = [
        (
            Verdict::Clean,
            Verdict::Clean,
            "no firewall rules are in force",
        ),
        (
            Verdict::DockerOnly,
            Verdict::Clean,
            "only Docker's own rules are in force",
        ),
        (
            Verdict::Clean,
            Verdict::DockerOnly,
            "only Docker's own rules are in force",
        ),
        (foreign_v6(), unknown(), "DOCKER-USER has rules"),
        (
            Verdict::DockerOnly,
            foreign_v6(),
            "IPv6: DOCKER-USER has rules",
        ),
        (
            Verdict::DockerOnly,
            unknown(),
            "cannot verify the firewall: IPv6: nft failed",
        ),
    ];
    for (v4, v6, words) in table {
        let allowed = v4.allows_direct() && v6.allows_direct();
        let verdict = combine(v4, v6);
        assert_eq!(verdict.to_string(), words);
        assert_eq!(verdict.allows_direct(), allowed, "{words}");
    }
}

#[test]
fn no_rules_are_no_obstacle() {
    assert_eq!(judge(Family::V4, &nft("")), Verdict::Clean);
    assert_eq!(judge(Family::V4, &legacy(EMPTY)), Verdict::Clean);
    assert!(Verdict::Clean.allows_direct() && Verdict::DockerOnly.allows_direct());
}

#[test]
fn dockers_tables_are_those_of_their_family() {
    let v4_only = DOCKER_29_NFT;
    assert_eq!(judge(Family::V6, &nft(v4_only)), Verdict::Clean);
    let posing = DOCKER_29_NFT.replace("table ip docker", "table inet docker");
    assert!(!judge(Family::V4, &nft(&posing)).allows_direct());
}

#[test]
fn rules_in_docker_user_count() {
    for (version, rules) in ALL_IPTABLES {
        let rules = insert(rules, "filter", "-A DOCKER-USER -s 203.0.113.9/32 -j DROP");
        let why = "DOCKER-USER has rules: -A DOCKER-USER -s 203.0.113.9/32 -j DROP";
        assert_eq!(
            judge(Family::V4, &legacy(&rules)),
            foreign(why),
            "{version}"
        );
    }
}

#[test]
fn somebody_elses_rules_on_the_way_count() {
    let table = [
        ("filter", "-A FORWARD -s 203.0.113.9/32 -j DROP"),
        (
            "filter",
            "-A FORWARD -m conntrack --ctstate INVALID -j REJECT",
        ),
        ("filter", "-A FORWARD -i eth0 -j RETURN"),
        ("filter", "-A FORWARD -g ELSEWHERE"),
        ("filter", "-A FORWARD -j NFQUEUE --queue-num 0"),
        (
            "filter",
            "-A FORWARD -m comment --comment \"why -j ACCEPT\" -j DROP",
        ),
        (
            "filter",
            "-A FORWARD -m comment --comment \"a \\\" -j ACCEPT\" -j DROP",
        ),
        // Shapes of Docker's, about interfaces that are not.
        ("filter", "-A DOCKER -i eth0 -o eth1 -j DROP"),
        (
            "filter",
            "-A DOCKER-ISOLATION-STAGE-1 ! -s 10.0.0.0/8 -o docker0 -j DROP",
        ),
        (
            "nat",
            "-A POSTROUTING -s 10.8.0.0/24 ! -o tun0 -j MASQUERADE",
        ),
        ("nat", "-A POSTROUTING -o eth0 -j MASQUERADE"),
        ("nat", "-A PREROUTING -p tcp -m tcp --dport 9000 -j ACCEPT"),
        (
            "nat",
            "-A PREROUTING -p tcp -m tcp --dport 9000 -j DNAT --to-destination 10.0.0.9:80",
        ),
        ("nat", "-A DOCKER -s 203.0.113.9/32 -j RETURN"),
    ];
    for (name, rule) in table {
        let ruleset = insert(DOCKER_20_10, name, rule);
        let chain = rule.split(' ').nth(1).expect("a chain");
        let why = format!("{name} {chain} has rules that are not Docker's: {rule}");
        assert_eq!(judge(Family::V4, &legacy(&ruleset)), foreign(&why));
    }
    let raw = insert(
        DOCKER_28_5,
        "raw",
        "-A PREROUTING -p udp -m udp --dport 53 -j DROP",
    );
    assert!(!judge(Family::V4, &legacy(&raw)).allows_direct());
    let mangle = "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -i eth0 -j MARK --set-xmark 0x1/0x1\nCOMMIT\n";
    assert!(!judge(Family::V4, &legacy(&format!("{DOCKER_20_10}{mangle}"))).allows_direct());
}

#[test]
fn what_cannot_deny_or_change_a_forwarded_packet_does_not_count() {
    let table = [
        ("filter", "-A INPUT -s 203.0.113.9/32 -j DROP"),
        ("filter", "-A OUTPUT -d 203.0.113.9/32 -j REJECT"),
        ("filter", "-A FORWARD -i wg0 -j ACCEPT"),
        (
            "filter",
            "-A FORWARD -m limit --limit 1/sec -j LOG --log-prefix \"-j DROP \"",
        ),
        ("filter", "-A FORWARD -m comment --comment counted"),
        (
            "nat",
            "-A OUTPUT -d 192.0.2.9/32 -j DNAT --to-destination 10.0.0.9",
        ),
    ];
    for (name, rule) in table {
        let ruleset = insert(DOCKER_20_10, name, rule);
        assert_eq!(
            judge(Family::V4, &legacy(&ruleset)),
            Verdict::DockerOnly,
            "{rule}"
        );
    }
}

#[test]
fn ufw_counts_while_it_is_on() {
    let on = "*filter\n:FORWARD ACCEPT [0:0]\n:ufw-before-forward - [0:0]\n:ufw-user-forward - [0:0]\n\
              -A FORWARD -j ufw-before-forward\n\
              -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
              -A ufw-before-forward -j ufw-user-forward\n\
              -A ufw-user-forward -s 203.0.113.9/32 -j DROP\nCOMMIT\n";
    let why = "filter ufw-user-forward has rules that are not Docker's: \
               -A ufw-user-forward -s 203.0.113.9/32 -j DROP";
    assert_eq!(judge(Family::V4, &legacy(on)), foreign(why));
    // `ufw disable` leaves its chains behind, empty.
    let off = "*filter\n:FORWARD ACCEPT [0:0]\n:ufw-before-forward - [0:0]\n\
               -A FORWARD -j ufw-before-forward\nCOMMIT\n";
    assert_eq!(judge(Family::V4, &legacy(off)), Verdict::Clean);
}

#[test]
fn a_policy_that_drops_counts_unless_docker_lets_its_ports_through() {
    let rules = EMPTY.replace(":FORWARD ACCEPT", ":FORWARD DROP");
    assert_eq!(
        judge(Family::V4, &legacy(&rules)),
        foreign("the policy of filter FORWARD is DROP")
    );
    let rules = DOCKER_28_5.replacen(":PREROUTING ACCEPT", ":PREROUTING DROP", 1);
    assert_eq!(
        judge(Family::V4, &legacy(&rules)),
        foreign("the policy of raw PREROUTING is DROP")
    );
    // A second backend with its own, Docker in the first.
    let two = Rulesets {
        xtables_legacy: Source::Text(EMPTY.replace(":FORWARD ACCEPT", ":FORWARD DROP")),
        ..both(DOCKER_20_10_NFT, DOCKER_20_10)
    };
    assert!(!judge(Family::V4, &two).allows_direct());
}

#[test]
fn nftables_tables_of_others_count() {
    let table = [
        (
            "table inet firewalld {\n\tchain filter_FORWARD {\n\t\ttype filter hook forward priority \
             filter + 10; policy accept;\n\t\tct state { established, related } accept\n\t}\n}\n",
            "nftables table inet firewalld has forward rules: ct state { established, related } accept",
        ),
        (
            "table inet filter {\n\tchain forward {\n\t\ttype filter hook forward priority filter; \
             policy drop;\n\t}\n}\n",
            "nftables table inet filter drops by default in its forward hook",
        ),
        (
            "table netdev guard {\n\tset bad {\n\t\ttype ipv4_addr\n\t\telements = { 192.0.2.7,\n\t\t\t\
             192.0.2.8 }\n\t}\n\n\tchain in {\n\t\ttype filter hook ingress device \"eth0\" priority \
             filter; policy accept;\n\t\tip saddr @bad drop\n\t}\n}\n",
            "nftables table netdev guard has ingress rules: ip saddr @bad drop",
        ),
        (
            "table ip filter {\n\tchain early {\n\t\ttype filter hook forward priority -5; policy \
             accept;\n\t\tip saddr 192.0.2.7 drop\n\t}\n}\n",
            "nftables table ip filter has a chain early that is not Docker's",
        ),
    ];
    for (list, why) in table {
        assert_eq!(judge(Family::V4, &nft(list)), foreign(why));
    }
}

#[test]
fn nftables_tables_off_the_way_do_not_count() {
    // Debian's /etc/nftables.conf, and a guard of the host's own ports.
    let list = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; \
                policy drop;\n\t\ttcp dport 22 accept\n\t}\n\n\tchain forward {\n\t\ttype filter hook \
                forward priority filter; policy accept;\n\t}\n}\n\
                table ip6 other {\n\tchain f {\n\t\ttype filter hook forward priority filter; \
                policy drop;\n\t}\n}\n";
    assert_eq!(judge(Family::V4, &nft(list)), Verdict::Clean);
    assert!(!judge(Family::V6, &nft(list)).allows_direct());
}

#[test]
fn rules_put_into_dockers_nftables_table_count() {
    let added = [
        ("ct state established", "ip saddr 192.0.2.7 drop"),
        (
            "ip daddr 172.17.0.2 tcp",
            "ip saddr 192.0.2.7 counter drop comment \"mine\"",
        ),
        (
            "iifname != \"docker0\" tcp dport 8080",
            "tcp dport 8080 dnat to 10.0.0.9:80",
        ),
        (
            "iifname vmap @nat-postrouting",
            "oifname \"eth0\" masquerade",
        ),
        ("oifname vmap @filter-forward", "jump mine"),
    ];
    for (before, rule) in added {
        let list = DOCKER_29_NFT.replacen(before, &format!("{rule}\n{before}"), 1);
        let verdict = judge(Family::V4, &nft(&list));
        let Verdict::Foreign(why) = verdict else {
            panic!("{rule}: {verdict}")
        };
        assert!(why.ends_with(rule), "{why}");
    }
}

#[test]
fn what_cannot_be_read_is_not_trusted() {
    let unreadable = Source::Unreadable("the nft command is missing; install nftables".to_owned());
    let rulesets = Rulesets {
        nft: unreadable,
        ..legacy(DOCKER_20_10)
    };
    let verdict = judge(Family::V4, &rulesets);
    assert!(!verdict.allows_direct());
    assert_eq!(
        verdict.to_string(),
        "cannot verify the firewall: the nft command is missing; install nftables"
    );
    // What is surely foreign is the better reason.
    let foreign = insert(DOCKER_20_10, "filter", "-A DOCKER-USER -j DROP");
    let rulesets = Rulesets {
        xtables_legacy: Source::Text(foreign),
        ..rulesets
    };
    assert!(matches!(judge(Family::V4, &rulesets), Verdict::Foreign(_)));
}

#[test]
fn nonsense_is_not_trusted() {
    for text in [
        "iptables: Permission denied\n",
        "# Table `filter' is incompatible, use 'nft' tool.\n",
        "# Table `nat' contains incompatible base-chains, use 'nft' tool to list them.\n",
    ] {
        assert!(
            matches!(judge(Family::V4, &legacy(text)), Verdict::Foreign(_)),
            "{text}"
        );
    }
    let circle = "*filter\n:FORWARD ACCEPT [0:0]\n:A - [0:0]\n:B - [0:0]\n-A FORWARD -j A\n-A A -j B\n\
                  -A B -j A\nCOMMIT\n";
    assert!(!judge(Family::V4, &legacy(circle)).allows_direct());
}
