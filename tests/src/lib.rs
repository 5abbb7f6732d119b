//! portway's lab: namespaces, a private Docker daemon and real conversations, for the demo and for
//! the tests.
//!
//! | module | is about |
//! |---|---|
//! | [`lab`] | the lab as a whole: an outside client and the host under test |
//! | [`netns`] | a network namespace |
//! | [`host`], [`cgroup`] | the host's network, mount and PID namespaces, and how they vanish; its cgroup |
//! | [`system`] | its file system: the machine's, or another Debian's |
//! | [`tun`] | a link without Ethernet, or with a driver that has native XDP |
//! | [`process`] | a command inside a namespace |
//! | [`tracer`] | one that is killed at a system call |
//! | [`daemon`] | one that runs until it is told to end |
//! | [`container`] | a container without Docker |
//! | [`docker`] | a private Docker daemon |
//! | [`engine`] | which daemon that is: dockerd, or podman |
//! | [`image`] | the image its containers run |
//! | [`guest`] | what runs inside: the host's first process, servers |
//! | [`conversation`] | HTTP, TCP and UDP clients |
//! | [`live`] | many conversations at once, and what becomes of them |
//! | [`raw`] | datagrams in fragments, in any order |
//! | [`packets`] | packets made by hand, sent and seen as they are |
//! | [`sequence`] | where a TCP connection is, by its client's kernel |
//! | [`conntrack`] | conntrack, as portway asks it |
//! | [`iptables`] | netfilter's counters |
//! | [`portway`], [`unit`] | the program under test; its systemd unit |
//! | [`footprint`] | what it has in the kernel |
//! | [`memory`] | what processes and maps take |
//! | [`procfs`] | numbers by name in /proc |
//! | [`rig`] | its programs, run on single packets |
//! | [`stage`] | plays a scenario without and with portway, and compares |
//! | [`pass`] | the checks of one such pass |
//! | [`report`] | what the demo prints |
//! | [`scenarios`] | the scenarios |
//! | [`fuzz`] | what has to hold of any text a user gives |
//! | [`harness`] | runs a test file |
//! | [`requirement`], [`kernel`] | what a machine may lack; which kernel it has |
//! | [`setting`] | what the environment says |
//! | [`wait`] | waiting for conditions |
//! | [`interrupt`] | Ctrl-C |
//! | [`soak`] | everything at once, for long, and every packet accounted for |
//! | [`differential`] | portway against the kernel, by random traffic in two labs |

pub mod cgroup;
pub mod conntrack;
pub mod container;
pub mod conversation;
pub mod daemon;
pub mod differential;
pub mod docker;
pub mod engine;
pub mod footprint;
pub mod fuzz;
pub mod guest;
pub mod harness;
pub mod host;
pub mod image;
pub mod interrupt;
pub mod iptables;
pub mod kernel;
pub mod lab;
pub mod live;
pub mod memory;
pub mod netns;
pub mod packets;
pub mod pass;
pub mod portway;
pub mod process;
pub mod procfs;
pub mod raw;
pub mod report;
pub mod requirement;
pub mod rig;
pub mod scenarios;
pub mod sequence;
pub mod setting;
pub mod soak;
pub mod stage;
pub mod system;
pub mod tracer;
pub mod tun;
pub mod unit;
pub mod wait;
