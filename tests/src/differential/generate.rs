//! Random stories.

use fastrand::Rng;

use super::{
    address::ON_LINK_PORTS,
    class::{Class, Classes},
    generate_step::{Part, step},
    party::{self, ALL, CONTAINERS, End},
    render::MAX_STEPS,
    step::Step,
    story::{Client, Host, Impostor, Line, Protocol, Story, Version},
    tcp::Connection,
};

/// How often a step is thought up anew before a story ends without it.
const ATTEMPTS: usize = 12;

/// The most conversations of a story.
const LINES: usize = 3;

/// The most steps of a conversation. On average there are some ten.
const STEPS: usize = 20;

const _: () = assert!(LINES * STEPS <= MAX_STEPS);

/// A port of the host's on which nothing is published.
const UNPUBLISHED: [u16; 3] = [9999, 8080, 80];

const IMPOSTORS: [Impostor; 10] = [
    Impostor::Host,
    Impostor::Gateway,
    Impostor::Container,
    Impostor::Neighbour,
    Impostor::Loopback,
    Impostor::Unspecified,
    Impostor::ThisNetwork,
    Impostor::Multicast,
    Impostor::Broadcast,
    Impostor::Reserved,
];

/// One of several.
pub fn one_of<T: Copy>(random: &mut Rng, choices: &[T]) -> T {
    choices[random.usize(..choices.len())]
}

/// True `percent` times out of a hundred.
pub fn chance(random: &mut Rng, percent: u8) -> bool {
    random.u8(..100) < percent
}

/// A story of the chosen classes.
pub fn story(random: &mut Rng, classes: &Classes) -> Story {
    let client = match random.u8(..100) {
        0..5 if classes.has(Class::Impostors) => Client::Impostor(one_of(random, &IMPOSTORS)),
        5..20 => Client::OnLink,
        _ => Client::Routed,
    };
    let version = match chance(random, 40) && classes.has(Class::Ipv6) {
        true => Version::V6,
        false => Version::V4,
    };
    let is_impostor = matches!(client, Client::Impostor(_));
    let mut lines = vec![line(random, classes, client)];
    while classes.has(Class::Collisions) && lines.len() < LINES && chance(random, 20) {
        let other = line(random, classes, client);
        let first = lines[0];
        let next = if chance(random, 60) {
            sibling(random, first)
        } else {
            other
        };
        // Conversations of one tuple would be one.
        if !lines.iter().any(|line| line.is_same(&next)) {
            lines.push(next);
        }
    }
    let mut connections = vec![Connection::default(); lines.len()];
    let mut steps: Vec<Step> = Vec::new();
    let count = random.usize(1..=STEPS) * lines.len();
    for _ in 0..count {
        let found = (0..ATTEMPTS).find_map(|_| {
            let number = random.usize(..lines.len());
            let line = &lines[number];
            // Whoever has not been reached has nothing to answer.
            let is_reached = steps
                .iter()
                .any(|step: &Step| step.line == number && step.arrives(line));
            let crossed = match line.protocol {
                Protocol::Tcp => Class::CrossedTcp,
                Protocol::Udp => Class::Crossed,
            };
            let speaker = match is_reached || classes.has(crossed) {
                true => is_impostor.then_some(End::Client),
                false => Some(line.opener),
            };
            let part = Part {
                version,
                line,
                number,
                speaker,
                is_impostor,
            };
            let step = step(random, classes, part);
            let is_possible =
                line.protocol == Protocol::Udp || connections[number].play(line, &step).is_some();
            is_possible.then_some(step)
        });
        steps.extend(found);
    }
    let story = Story {
        version,
        client,
        lines,
        steps,
    };
    match classes.have(&story.classes()) {
        true => story,
        false => self::story(random, classes),
    }
}

fn line(random: &mut Rng, classes: &Classes, client: Client) -> Line {
    let is_impostor = matches!(client, Client::Impostor(_));
    let protocol = one_of(random, &[Protocol::Tcp, Protocol::Udp]);
    let container = random.usize(..CONTAINERS);
    let publication = one_of(random, ALL[container].publications);
    let host = match publication.host {
        None => match random.u8(..10) {
            0..6 => Host::Primary,
            6..8 => Host::Secondary,
            8 => Host::OnLoopback,
            _ => Host::Gateway,
        },
        // Published on loopback, and asked for from outside.
        Some(Host::Loopback) => one_of(random, &[Host::Primary, Host::Loopback]),
        Some(host) => host,
    };
    let mut line = Line {
        protocol,
        opener: End::Client,
        client_port: client_port(random, client, publication.host_port),
        host,
        host_port: publication.host_port,
        container,
        port: publication.port,
    };
    if chance(random, 12) && classes.has(Class::Outbound) && !is_impostor {
        line.opener = End::Container;
        line.host = Host::Primary;
    } else if chance(random, 15) && classes.has(Class::Elsewhere) {
        match random.u8(..8) {
            0 => line.host_port = one_of(random, &UNPUBLISHED),
            1 => line.host = Host::Loopback,
            2 => line.host = Host::Broadcast,
            3 => line.host = Host::Multicast,
            4 => line.host = Host::Transit,
            5 => {
                line.host = Host::Container;
                line.host_port = line.port;
            }
            _ => line.host = one_of(random, &[Host::Primary, Host::Secondary, Host::Gateway]),
        }
    }
    adopt(&mut line);
    line
}

/// Another conversation of the same client port, to another port or address of the host's.
fn sibling(random: &mut Rng, first: Line) -> Line {
    let mut line = first;
    line.opener = End::Client;
    line.host = one_of(random, &[Host::Primary, Host::Secondary]);
    line.host_port = match first.host_port {
        9000 => one_of(random, &[9000, 9001]),
        9001 => 9000,
        9003 => one_of(random, &[9003, 9004]),
        port => port,
    };
    adopt(&mut line);
    line
}

/// Has the container answer to which the port leads, if it leads to one.
fn adopt(line: &mut Line) {
    if line.opener == End::Client
        && let Some((container, port)) = party::serves(line.host, line.host_port)
    {
        line.container = container;
        line.port = port;
    }
}

fn client_port(random: &mut Rng, client: Client, host_port: u16) -> u16 {
    match random.u8(..10) {
        _ if client == Client::OnLink => random.u16(1..ON_LINK_PORTS),
        0 => random.u16(1..512),
        1 => random.u16(512..1024),
        2 => one_of(random, &[host_port, 53, 8080, 9000]),
        _ => random.u16(1024..),
    }
}
