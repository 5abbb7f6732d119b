//! What a story may be: nothing that the kernel and portway are bound to treat in different ways, unless it
//! is asked for.

use super::{
    class::Class,
    party,
    step::{Act, Order, Step, Twist},
    story::{Client, Host, Line, Protocol, Story, Version},
    tcp::Connection,
};

/// Bytes of IP and TCP headers with all the options that are played.
const LONGEST_HEADERS: u16 = 76;

impl Story {
    /// Whether two honest ends could have made this traffic, as far as conntrack keeps count of it and
    /// portway does not: the order of TCP's segments.
    pub fn is_plausible(&self) -> bool {
        let mut connections = vec![Connection::default(); self.lines.len()];
        let mut lines = self.lines.iter().enumerate();
        let is_twice = lines
            .any(|(number, line)| self.lines[..number].iter().any(|other| other.is_same(line)));
        !is_twice
            && self.steps.iter().all(|step| {
                let line = &self.lines[step.line];
                line.protocol == Protocol::Udp || connections[step.line].play(line, step).is_some()
            })
    }

    /// The classes of traffic that it needs.
    pub fn classes(&self) -> Vec<Class> {
        let mut classes: Vec<_> = self.steps.iter().flat_map(Step::classes).collect();
        if matches!(self.client, Client::Impostor(_)) {
            classes.push(Class::Impostors);
        }
        if self.version == Version::V6 {
            classes.push(Class::Ipv6);
        }
        classes.extend(self.crossed().map(|protocol| match protocol {
            Protocol::Udp => Class::Crossed,
            Protocol::Tcp => Class::CrossedTcp,
        }));
        classes.extend(self.steps.iter().filter_map(|step| {
            let is_cut = |twist: &Twist| matches!(twist, Twist::Fragments(..));
            let is_long = step.is_long(&self.lines[step.line]);
            (is_long && step.twists.iter().any(is_cut)).then_some(Class::LongFragments)
        }));
        let alike = self.steps.iter().filter(|step| {
            let line = &self.lines[step.line];
            let others = self.lines.iter().filter(|other| other.looks_like(line));
            others.count() > 1
        });
        for step in alike {
            if step.act == Act::Refuse {
                classes.push(Class::RefusedAlike);
            }
            if step.is_for_kernel(&self.lines[step.line]) || step.is_never_whole() {
                classes.push(Class::Split);
            }
        }
        classes
    }

    /// The protocols over which an end sends on ports on which it has not been reached, or both begin a
    /// conversation on the same ports.
    fn crossed(&self) -> impl Iterator<Item = Protocol> {
        let early = self.steps.iter().enumerate().filter(|(number, step)| {
            let is_others = |before: &&Step| before.line == step.line && before.from != step.from;
            let line = &self.lines[step.line];
            let mut before = self.steps[..*number].iter().filter(is_others);
            step.from != line.opener && !before.any(|before| before.arrives(line))
        });
        let early = early.map(|(_, step)| self.lines[step.line].protocol);
        let crossed = self.lines.iter().filter(|line| {
            let mut others = self.lines.iter();
            others.any(|other| line.crosses(other) || other.crosses(line))
        });
        early.chain(crossed.map(|line| line.protocol))
    }
}

impl Step {
    /// Whether portway leaves it to the kernel, though it belongs to a conversation.
    fn is_for_kernel(&self, line: &Line) -> bool {
        let is_twisted = self.twists.iter().any(|twist| {
            matches!(
                twist,
                Twist::Ttl(_) | Twist::Options | Twist::Tags(_) | Twist::Segments(_)
            )
        });
        // The host's answer makes the rest of the conversation the host's.
        let is_stray = matches!(self.act, Act::Stray(_));
        is_twisted
            || is_stray
            || self.is_long(line)
            || matches!(line.host, Host::Loopback | Host::Container)
    }

    /// Whether it begins a datagram that never gets whole: portway knows a flow then, the kernel nothing.
    fn is_never_whole(&self) -> bool {
        let mut twists = self.twists.iter();
        twists.any(|twist| matches!(twist, Twist::Fragments(_, Order::WithoutLast)))
    }

    /// Whether it may be larger than the container's MTU.
    fn is_long(&self, line: &Line) -> bool {
        match self.act {
            Act::Data(length) | Act::Datagram(length) => {
                length + LONGEST_HEADERS > party::ALL[line.container].network.mtu
            }
            _ => false,
        }
    }

    /// Whether it surely reaches the other end, if that is published.
    pub fn arrives(&self, line: &Line) -> bool {
        let is_odd = |twist: &Twist| {
            matches!(
                twist,
                Twist::Ttl(_) | Twist::UdpLength(_) | Twist::DontFragment
            )
        };
        let is_valid = !matches!(self.act, Act::Odd(_) | Act::Stray(_) | Act::Error(_));
        let is_served =
            line.host == Host::Container || party::serves(line.host, line.host_port).is_some();
        let is_reachable = !matches!(line.host, Host::Loopback) && is_served;
        self.counts()
            && is_valid
            && is_reachable
            && !self.is_long(line)
            && !self.twists.iter().any(is_odd)
    }
}
