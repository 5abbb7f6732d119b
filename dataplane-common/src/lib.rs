//! What portway's eBPF programs, its controller and its tests share.
//!
//! A packet's way through the core, one file a step:
//!
//! | module | its job |
//! |---|---|
//! | [`packet`] | the trait by which the core reads and writes a packet, whatever holds it |
//! | [`headers`] | wire formats, with the network-order newtypes they are made of |
//! | [`family`] | what differs between IPv4 and IPv6, as a compile-time parameter |
//! | [`parse`] | bytes -> [`parse::Parsed`], or the [`reason`] they are left alone |
//! | [`forward`] | the decision for a packet from outside: client -> container |
//! | [`join`] | finding a packet's flow, or beginning it |
//! | [`lease`] | the same where the host's firewall admits flows: it is asked again and again |
//! | [`reply`] | the decision for a packet from a container: container -> client |
//! | [`icmp`] | the decision for ICMP errors about accelerated packets, both ways |
//! | [`fragment`] | fragments, which follow their datagram's first one |
//! | [`foreign`] | taking note of what leaves and is not ours |
//! | [`adoption`] | taking over what the kernel has translated so far |
//! | [`rewrite`] | the writes, once everything is decided |
//! | [`tables`] | the trait by which the core reaches maps, clock and routing |
//!
//! What the tables hold:
//!
//! | module | its job |
//! |---|---|
//! | [`published`] | published ports and the backends they lead to |
//! | [`flow`] | flows: keys, what a flow knows, counters |
//! | [`bucket`] | the table that flows are found in |
//! | [`state`] | how far a flow has come, and its time-outs |
//! | [`sequence`] | where a TCP connection is, by its container's sequence numbers |
//! | [`reason`] | why a packet was left to the slow path; the counters' index |
//! | [`settings`] | what the controller tells the programs |
//! | [`registry`] | what the controller keeps in pinned maps for itself |
//! | [`layout`] | names, sizes and version of the pinned maps |
//! | [`checksum`], [`clock`] | incremental Internet checksums; time in larger units |
//!
//! With the feature `testing`, `testing` has all of it over plain bytes and plain maps.
//!
//! Nothing here touches the kernel: the same code is compiled for eBPF and for unit tests on the host.
#![cfg_attr(not(any(test, feature = "testing")), no_std)]

pub mod adoption;
pub mod bucket;
pub mod checksum;
pub mod clock;
pub mod family;
pub mod flow;
pub mod foreign;
pub mod forward;
pub mod fragment;
pub mod headers;
pub mod icmp;
pub mod join;
pub mod layout;
pub mod lease;
pub mod packet;
pub mod parse;
#[cfg(feature = "user")]
pub mod pod;
pub mod published;
pub mod reason;
pub mod registry;
pub mod reply;
pub mod rewrite;
pub mod sequence;
pub mod settings;
pub mod state;
pub mod tables;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
