//! Telling of a new flow, where the programs were loaded to do so; else the verifier removes it all, since
//! the log level is a constant by then.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::info;
use dataplane_common::{
    family::{Family, V4, V6},
    forward::Forward,
    parse::Parsed,
};

/// An IP version whose addresses can be told.
pub trait Trace: Family {
    /// Tells of a new flow.
    fn trace(context: &impl EbpfContext, parsed: &Parsed<Self>, forward: &Forward<Self>);
}

/// Implements it for a family, given the method by which an address becomes one that the logger knows.
macro_rules! trace {
    ($family:ty, $show:ident) => {
        impl Trace for $family {
            #[inline(always)]
            fn trace(context: &impl EbpfContext, parsed: &Parsed<Self>, forward: &Forward<Self>) {
                let (network, ports) = (&parsed.network, parsed.ports);
                info!(
                    context,
                    "protocol {}: {:i}:{} to {:i}:{} goes to {:i}:{}",
                    network.protocol.0,
                    network.source.$show(),
                    ports.source.get(),
                    network.destination.$show(),
                    ports.destination.get(),
                    forward.address.$show(),
                    forward.ports.destination.get()
                );
            }
        }
    };
}

trace!(V4, get);
trace!(V6, bytes);
