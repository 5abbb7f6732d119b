//! semantics.md's table of `-p`, with the container's address in front of its port.

use super::*;

fn parsed(spec: &str) -> Publication {
    Spec::parse(spec).unwrap_or_else(|error| panic!("{spec}: {error}"))
}

#[test]
fn what_is_accepted_and_what_it_means() {
    let table = [
        // spec, the same in full, declined
        ("9000:10.0.0.2:8080", "9000:10.0.0.2:8080/tcp", None),
        ("0.0.0.0:9000:10.0.0.2:8080", "9000:10.0.0.2:8080/tcp", None),
        (":9000:10.0.0.2:8080", "9000:10.0.0.2:8080/tcp", None),
        ("9000:10.0.0.2:8080/TCP", "9000:10.0.0.2:8080/tcp", None),
        ("9000:10.0.0.2:8080/", "9000:10.0.0.2:8080/tcp", None),
        ("9000:10.0.0.2:8080/Udp", "9000:10.0.0.2:8080/udp", None),
        (
            "192.0.2.1:9000:10.0.0.2:8080",
            "192.0.2.1:9000:10.0.0.2:8080/tcp",
            None,
        ),
        (
            "8000-8002:10.0.0.2:80-82",
            "8000-8002:10.0.0.2:80-82/tcp",
            None,
        ),
        ("80-80:10.0.0.2:81-81", "80:10.0.0.2:81/tcp", None),
        ("080:10.0.0.2:80", "80:10.0.0.2:80/tcp", None),
        (
            "10000-20000:10.0.0.2:10000-20000/udp",
            "10000-20000:10.0.0.2:10000-20000/udp",
            None,
        ),
        (
            "1-65535:10.0.0.2:1-65535",
            "1-65535:10.0.0.2:1-65535/tcp",
            None,
        ),
        ("9000:[10.0.0.2]:80", "9000:10.0.0.2:80/tcp", None),
        (
            "127.0.0.1:80:10.0.0.2:80",
            "127.0.0.1:80:10.0.0.2:80/tcp",
            Some(Declined::Loopback),
        ),
        (
            "[::ffff:127.0.0.1]:80:10.0.0.2:80",
            "127.0.0.1:80:10.0.0.2:80/tcp",
            Some(Declined::Loopback),
        ),
        (
            "[::1]:80:[fd00::2]:80",
            "[::1]:80:[fd00::2]:80/tcp",
            Some(Declined::Loopback),
        ),
        (
            "::1:80:[fd00::2]:80",
            "[::1]:80:[fd00::2]:80/tcp",
            Some(Declined::Loopback),
        ),
        ("80:[fd00::2]:80/udp", "80:[fd00::2]:80/udp", None),
        ("[::]:80:[fd00::2]:80", "80:[fd00::2]:80/tcp", None),
        (
            "[2001:db8::1]:80:[fd00::2]:80",
            "[2001:db8::1]:80:[fd00::2]:80/tcp",
            None,
        ),
    ];
    for (spec, full, declined) in table {
        let publication = parsed(spec);
        assert_eq!(publication.to_string(), full, "{spec}");
        assert_eq!(publication.declined, declined, "{spec}");
        assert_eq!(publication.source, Source::Static, "{spec}");
        assert_eq!(publication.name, "", "{spec}");
    }
}

#[test]
fn what_is_refused_and_with_which_words() {
    let table = [
        ("", "no port specified: "),
        ("/udp", "no port specified: /udp"),
        ("9000:", "no port specified: 9000:"),
        ("9000:10.0.0.2:", "no port specified: 9000:10.0.0.2:"),
        ("9000:10.0.0.2:80/foo", "invalid proto: foo"),
        ("9000:10.0.0.2:80/tcp/udp", "invalid proto: tcp/udp"),
        ("9000:10.0.0.2:80/ tcp", "invalid proto:  tcp"),
        ("127.0.0.1:10.0.0.2:80", "invalid hostPort: 127.0.0.1"),
        ("localhost:80:10.0.0.2:80", "invalid IP address: localhost"),
        (
            "localhost:65536:10.0.0.2:80",
            "invalid IP address: localhost",
        ),
        ("80:web:80", "invalid IP address: web"),
        (
            "[fe80::1%eth0]:80:[fd00::2]:80",
            "invalid IP address: [fe80::1%eth0]",
        ),
        ("[::1:80:10.0.0.2:80", "invalid IP address: [::1"),
        ("300.0.0.1:80:10.0.0.2:80", "invalid IP address: 300.0.0.1"),
        ("8002-8000:10.0.0.2:80", "invalid hostPort: 8002-8000"),
        ("65536:10.0.0.2:80", "invalid hostPort: 65536"),
        ("0:10.0.0.2:80", "invalid hostPort: 0"),
        ("0-10:10.0.0.2:80-90", "invalid hostPort: 0-10"),
        ("+80:10.0.0.2:80", "invalid hostPort: +80"),
        ("-80:10.0.0.2:80", "invalid hostPort: -80"),
        ("80-:10.0.0.2:80", "invalid hostPort: 80-"),
        ("1-2-3:10.0.0.2:80", "invalid hostPort: 1-2-3"),
        (" 80:10.0.0.2:80", "invalid hostPort:  80"),
        ("http:10.0.0.2:80", "invalid hostPort: http"),
        ("80:10.0.0.2:65536", "invalid containerPort: 65536"),
        ("80:10.0.0.2:0", "invalid containerPort: 0"),
        ("80:10.0.0.2:82-80", "invalid containerPort: 82-80"),
        ("80:10.0.0.2:٨٠", "invalid containerPort: ٨٠"),
    ];
    for (spec, words) in table {
        match Spec::parse(spec) {
            Ok(publication) => panic!("{spec} was taken for {publication}"),
            Err(error) => assert_eq!(error.to_string(), words, "{spec}"),
        }
    }
}

#[test]
fn what_is_refused_with_words_of_our_own() {
    let v4 = |last| IpAddr::from([10, 0, 0, last]);
    let ports = |first, last| PortRange { first, last };
    let table = [
        ("9000", SpecError::NoContainerAddress("9000".to_owned())),
        (
            "9000:8080",
            SpecError::NoContainerAddress("9000:8080".to_owned()),
        ),
        (
            "127.0.0.1::10.0.0.2:80",
            SpecError::NoHostPort("127.0.0.1::10.0.0.2:80".to_owned()),
        ),
        (
            ":10.0.0.2:80",
            SpecError::NoHostPort(":10.0.0.2:80".to_owned()),
        ),
        (
            "8000-8002:10.0.0.2:80-81",
            SpecError::Ranges {
                container: ports(80, 81),
                host: ports(8000, 8002),
            },
        ),
        (
            "80:10.0.0.2:80-81",
            SpecError::Ranges {
                container: ports(80, 81),
                host: ports(80, 80),
            },
        ),
        (
            "8000-8002:10.0.0.2:80",
            SpecError::FirstFree {
                container: ports(80, 80),
                host: ports(8000, 8002),
            },
        ),
        ("80:10.0.0.2:80/sctp", SpecError::Sctp),
        ("80:10.0.0.2:80/SCTP", SpecError::Sctp),
        (
            "80:fd00::2:80",
            SpecError::Brackets("80:fd00::2:80".to_owned()),
        ),
        ("::1:80:80", SpecError::Brackets("::1:80:80".to_owned())),
        ("80::80", SpecError::NoContainerAddress("80::80".to_owned())),
        (
            "80:2001:db8:0:0:0:0:0:2:80",
            SpecError::Brackets("80:2001:db8:0:0:0:0:0:2:80".to_owned()),
        ),
        (
            "80:0.0.0.0:80",
            SpecError::AddressKind(IpAddr::from([0; 4])),
        ),
        (
            "80:127.0.0.1:80",
            SpecError::AddressKind(IpAddr::from([127, 0, 0, 1])),
        ),
        (
            "80:224.0.0.1:80",
            SpecError::AddressKind(IpAddr::from([224, 0, 0, 1])),
        ),
        (
            "224.0.0.1:80:10.0.0.2:80",
            SpecError::AddressKind(IpAddr::from([224, 0, 0, 1])),
        ),
        (
            "255.255.255.255:80:10.0.0.2:80",
            SpecError::AddressKind(IpAddr::from([255; 4])),
        ),
        (
            "80:[fe80::2]:80",
            SpecError::LinkLocal(IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 2])),
        ),
        (
            "[fe80::1]:80:[fd00::2]:80",
            SpecError::LinkLocal(IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1])),
        ),
        (
            "80:[::1]:80",
            SpecError::AddressKind(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])),
        ),
        (
            "[::]:80:10.0.0.2:80",
            SpecError::FamilyMix {
                host: IpAddr::from([0u16; 8]),
                container: v4(2),
            },
        ),
        (
            "10.0.0.1:80:[fd00::2]:80",
            SpecError::FamilyMix {
                host: v4(1),
                container: IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2]),
            },
        ),
    ];
    for (spec, error) in table {
        assert_eq!(Spec::parse(spec), Err(error), "{spec}");
    }
}

#[test]
fn what_is_printed_is_read_back() {
    let addresses = [
        ("0.0.0.0", "10.0.0.2"),
        ("192.0.2.1", "172.17.0.2"),
        ("127.0.0.1", "10.0.0.2"),
        ("::", "fd00::2"),
        ("2001:db8::1", "fd00::2"),
        ("::1", "2001:db8::ffff"),
    ];
    let ports = [
        (1, 1, 65535),
        (1, 65535, 1),
        (80, 80, 80),
        (10000, 20000, 30000),
        (65535, 65535, 1),
    ];
    for (host_ip, container_ip) in addresses {
        for (first, last, container_port) in ports {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let host_ip = host_ip.parse().expect("an address");
                let publication = Publication {
                    protocol,
                    host_ip,
                    host_ports: PortRange { first, last },
                    container_ip: container_ip.parse().expect("an address"),
                    container_port,
                    source: Source::Static,
                    name: String::new(),
                    declined: declined(host_ip),
                };
                assert_eq!(parsed(&publication.to_string()), publication);
            }
        }
    }
}

#[test]
fn no_text_whatever_makes_the_parser_panic() {
    // Every string of up to six of the characters that mean something.
    let alphabet = ['1', ':', '[', ']', '-', '/', '.', 'é'];
    let mut strings = vec![String::new()];
    for _ in 0..6 {
        strings = strings
            .iter()
            .flat_map(|string| alphabet.iter().map(move |c| format!("{string}{c}")))
            .collect();
        for string in &strings {
            let _ = Spec::parse(string);
            let _ = Unpublish::parse(string);
        }
    }
}

#[test]
fn unpublish_names_what_publish_made() {
    let any = Unpublish::parse("9000").expect("a port");
    assert_eq!(any.host_ports, PortRange::single(9000));
    assert_eq!((any.host_ip, any.protocol), (None, Protocol::Tcp));
    assert!(any.is_on(&parsed("9000:10.0.0.2:80")));
    assert!(any.is_on(&parsed("9000:[fd00::2]:80")));
    assert!(!any.is_on(&parsed("9000:10.0.0.2:80/udp")));
    assert!(!any.is_on(&parsed("192.0.2.1:9000:10.0.0.2:80")));

    let range = Unpublish::parse("192.0.2.1:8000-8002/UDP").expect("a range");
    assert_eq!(
        range.host_ports,
        PortRange {
            first: 8000,
            last: 8002
        }
    );
    assert!(range.is_on(&parsed("192.0.2.1:8000-8002:10.0.0.2:80-82/udp")));

    for spec in ["[::1]:80", "::1:80"] {
        let v6 = Unpublish::parse(spec).expect("an IPv6 host address");
        assert_eq!(v6.host_ip, Some(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])));
    }
}

#[test]
fn unpublish_refuses_with_the_same_words() {
    let table = [
        ("", "no port specified: "),
        ("/tcp", "no port specified: /tcp"),
        ("65536", "invalid hostPort: 65536"),
        ("0", "invalid hostPort: 0"),
        ("8002-8000", "invalid hostPort: 8002-8000"),
        ("web", "invalid hostPort: web"),
        ("localhost:80", "invalid IP address: localhost"),
        ("80/foo", "invalid proto: foo"),
        ("9000:8080", "invalid IP address: 9000"),
    ];
    for (spec, words) in table {
        assert_eq!(
            Unpublish::parse(spec).map_err(|error| error.to_string()),
            Err(words.to_owned()),
            "{spec}"
        );
    }
}
