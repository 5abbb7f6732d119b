//! portway's controller and command line.
//!
//! What is wanted flows one way: provider -> desired state -> diff -> maps. Any event only triggers
//! another full pass.
//!
//! | module | its job |
//! |---|---|
//! | [`publication`] | what somebody wants published |
//! | [`spec`] | the grammar of `publish` |
//! | [`docker`] | Docker as a provider: snapshot, then events |
//! | [`desired`] | providers' wishes put together, conflicts settled |
//! | [`netlink`] | links, addresses, routes and neighbours; where a container is |
//! | [`placement`] | where each wish leads to, or why it leads nowhere yet |
//! | [`plan`] | from rows and wishes to what has to be done |
//! | [`reconcile`] | one pass: doing it, in an order that holds at every moment |
//! | [`ports`] | writing the slots by which programs find a backend |
//! | [`rows`] | what is published, as the pinned map keeps it |
//! | [`backends`] | where containers are, as the programs' map keeps it |
//! | [`address`] | addresses as the maps have them |
//! | [`text`] | text in the maps' fields of fixed size |
//! | [`hooks`] | what is attached where |
//! | [`attach`] | attaching and detaching |
//! | [`xdp`] | XDP in front of TC: where, why, and what containers need for it |
//! | [`dataplane`] | the pinned programs and maps |
//! | [`kernel`] | which kernels these load on |
//! | [`batch`] | maps read by thousands of entries at a time |
//! | [`pinned`] | taking off programs whose links are pinned |
//! | [`tcx`] | which programs TCX runs at an interface |
//! | [`syscall`] | bpf(2), for what aya does not have |
//! | [`flows`], [`liveness`], [`collector`] | reading flows; which are over; removing them |
//! | [`upgrade`] | another build's programs for those that are loaded |
//! | [`instance`] | pin paths, and the lock on them |
//! | [`firewall`] | is the ruleset in force Docker's own and nothing else? |
//! | [`admission`] | who admits flows, and why |
//! | [`conntrack`] | conversations as the kernel tracks them |
//! | [`foreign`] | conversations that others began before their port was published |
//! | [`handover`] | telling conntrack of flows that it is to take over |
//! | [`takeover`] | taking over what netfilter has translated so far |
//! | [`controller`] | the long-running loop of `portway run` |
//! | [`announce`] | what it prints of what happens |
//! | [`trace`] | what the programs tell of new flows |
//! | [`privileges`] | the capabilities it keeps, and when it uses them |
//! | [`output`], [`signals`] | standard output; SIGINT and SIGTERM |
//! | [`sockets`] | ports that the host's own sockets have taken |
//! | [`cli`] | the command line, a file per command |

pub mod address;
pub mod admission;
pub mod announce;
pub mod attach;
pub mod backends;
pub mod batch;
pub mod cli;
pub mod collector;
pub mod conntrack;
pub mod controller;
pub mod dataplane;
pub mod desired;
pub mod docker;
pub mod firewall;
pub mod flows;
pub mod foreign;
pub mod handover;
pub mod hooks;
pub mod instance;
pub mod kernel;
pub mod liveness;
pub mod netlink;
pub mod output;
pub mod pinned;
pub mod placement;
pub mod plan;
pub mod ports;
pub mod privileges;
pub mod publication;
pub mod reconcile;
pub mod rows;
pub mod signals;
pub mod sockets;
pub mod spec;
pub mod syscall;
pub mod takeover;
pub mod tcx;
pub mod text;
pub mod trace;
pub mod upgrade;
pub mod xdp;
