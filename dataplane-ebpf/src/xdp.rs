//! XDP of external interfaces: client -> container, for what is plain. All else is passed as it came, and
//! left to the program at TC, which does everything: nothing is counted or noted of it here.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT},
    macros::xdp,
    programs::XdpContext,
};
use dataplane_common::{
    family::{V4, V6},
    forward::forward,
    headers::EtherType,
    packet::WriteFault,
    parse::{l4, parse},
    reason::Counter,
    rewrite,
    tables::Tables,
};

use crate::{
    frame::Frame,
    kernel::{Kernel, Xdp, count},
    maps::FamilyMaps,
    routing::Routing,
    trace::Trace,
};

/// Client -> container.
#[xdp]
pub fn portway_xdp(context: XdpContext) -> u32 {
    let frame = &mut Frame::new(context);
    match frame.ether_type() {
        Some(EtherType::IPV4) => to_container::<V4>(frame),
        Some(EtherType::IPV6) => to_container::<V6>(frame),
        _ => XDP_PASS,
    }
}

#[inline(never)]
fn to_container<F: FamilyMaps + Routing + Trace>(frame: &mut Frame) -> u32 {
    let kernel = &Kernel::<Xdp>::new(frame.context());
    let Ok(parsed) = parse::<F, _>(frame) else {
        return XDP_PASS;
    };
    let l4 = l4::<F, Frame>();
    let settings = Tables::<F>::settings(kernel);
    if !settings.is_some_and(|settings| settings.is_for_xdp(parsed.network.protocol))
        || parsed.is_checksum_unfinished(frame, l4)
    {
        return XDP_PASS;
    }
    let Ok(forward) = forward(frame, &parsed, kernel, frame.interface()) else {
        return XDP_PASS;
    };
    if forward.is_first {
        F::trace(frame.context(), &parsed, &forward);
    }
    if let Err(WriteFault) = rewrite::to_container(frame, &parsed, l4, &forward) {
        count(Counter::WriteFault);
        return XDP_DROP;
    }
    count(Counter::ForwardedByXdp);
    // Where to is settled since the backend was found to be in reach.
    XDP_REDIRECT
}
