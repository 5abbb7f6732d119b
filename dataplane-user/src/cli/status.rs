//! `portway status`.

use std::collections::BTreeMap;

use dataplane_common::{reason::Counter, settings::Admission};
use serde::Serialize;

use super::{args::OutputArgs, flows::for_each_live, table};
use crate::{
    admission,
    dataplane::Dataplane,
    instance::Instance,
    output::print,
    rows,
    text::decode_text,
    xdp::report::{Report, report},
};

/// The contract of `status --json`.
#[derive(Debug, Default, Serialize)]
struct Status {
    loaded: bool,
    instance: String,
    version: String,
    admission: AdmissionStatus,
    external: Vec<Report>,
    ports: usize,
    flows: usize,
    counters: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Default, Serialize)]
struct AdmissionStatus {
    mode: &'static str,
    why: String,
}

/// Shows what is attached, how flows are admitted and why, and the counters.
pub fn status(instance: &Instance, args: OutputArgs) -> anyhow::Result<()> {
    let status = if instance.is_loaded()? {
        read(instance, &Dataplane::open(instance)?)?
    } else {
        Status {
            instance: instance.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            admission: AdmissionStatus {
                mode: "off",
                why: "portway is not loaded".into(),
            },
            ..Status::default()
        }
    };
    if args.json {
        return table::print_json(&status);
    }
    print(&text(&status))
}

fn read(instance: &Instance, dataplane: &Dataplane) -> anyhow::Result<Status> {
    let record = dataplane.read_record()?;
    let settings = dataplane.read_settings()?;
    let mut counters = BTreeMap::new();
    for counter in Counter::ALL {
        counters.insert(counter.word(), dataplane.counter(*counter)?);
    }
    let mut flows = 0;
    for_each_live(dataplane, |_| flows += 1)?;
    Ok(Status {
        loaded: true,
        instance: instance.to_string(),
        version: decode_text(&record.version),
        admission: AdmissionStatus {
            mode: admission::word(Admission::from_number(settings.admission)),
            why: why(instance, dataplane)?,
        },
        external: report(dataplane)?,
        ports: rows::read(dataplane)?.len(),
        flows,
        counters,
    })
}

fn why(instance: &Instance, dataplane: &Dataplane) -> anyhow::Result<String> {
    let record = dataplane.read_record()?;
    let mut why = decode_text(&record.admission_why);
    if admission::requested(dataplane)? == admission::Request::Auto && !instance.is_watched() {
        why.push_str("; looked at once, as no `portway run` follows the rules");
    }
    Ok(why)
}

fn text(status: &Status) -> String {
    if !status.loaded {
        return format!("portway is not loaded (instance {})\n", status.instance);
    }
    let external: Vec<_> = status
        .external
        .iter()
        .map(|external| format!("{} ({})", external.interface, external.hooks.join(", ")))
        .collect();
    let mut text = format!(
        "instance   {}, loaded by portway {}\nadmission  {}: {}\nexternal   {}\n{}ports      {}\nflows      {}\n",
        status.instance,
        status.version,
        status.admission.mode,
        status.admission.why,
        if external.is_empty() {
            "none".into()
        } else {
            external.join(", ")
        },
        status.external.iter().map(xdp).collect::<String>(),
        status.ports,
        status.flows,
    );
    // What never happened is left out; the two that matter are always there.
    let counted = Counter::ALL.iter().filter_map(|counter| {
        let count = *status.counters.get(counter.word())?;
        let shown = count > 0 || matches!(counter, Counter::Forwarded | Counter::Replied);
        shown.then(|| {
            format!(
                "{:>12}  {:<16} {}\n",
                count,
                counter.word(),
                counter.meaning()
            )
        })
    });
    text.push_str("packets\n");
    text.extend(counted);
    text
}

/// The line about XDP on an external interface.
fn xdp(external: &Report) -> String {
    let Report { interface, xdp, .. } = external;
    let what = if xdp.protocols.is_empty() {
        format!("not on {interface}")
    } else {
        format!("{} on {interface}", xdp.protocols.join(" and "))
    };
    format!("xdp        {what}: {}\n", xdp.why)
}
