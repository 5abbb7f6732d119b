//! docs/packet-way.svg: a packet's way from a client to a container, without portway and with it.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{
    compile::workspace,
    svg::{Area, Svg, Text},
};

/// Draws the picture into the repository.
///
/// # Errors
/// If its file cannot be written.
pub fn write() -> Result<()> {
    let path = path();
    fs::write(&path, draw()).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

fn path() -> PathBuf {
    workspace().join("docs/packet-way.svg")
}

const WIDTH: i32 = 920;
const HEIGHT: i32 = 576;
const TITLE: &str =
    "The way of a packet to a container's published port, without portway and with it";

/// Its own background: the page behind may be light or dark.
const STYLE: &str = "
    text { font-family: -apple-system, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', Helvetica, Arial, sans-serif; fill: #1f2328 }
    .centred { text-anchor: middle }
    .heading { font-size: 17px; font-weight: 600 }
    .remark { font-size: 13px; font-weight: 400; fill: #59636e }
    .name { font-size: 11px; font-weight: 600 }
    .code { font-size: 12px; font-weight: 600; font-family: ui-monospace, 'SF Mono', Menlo, 'DejaVu Sans Mono', monospace }
    .detail { font-size: 11px; fill: #59636e }
    .page { fill: #ffffff; stroke: #d1d9e0 }
    .host { fill: #f6f8fa; stroke: #d1d9e0 }
    .end { fill: #ddf4ff; stroke: #54aeff }
    .device { fill: #ffffff; stroke: #818b98 }
    .stage { fill: #fff8c5; stroke: #d4a72c }
    .idle { fill: none; stroke: #b6bfc8; stroke-dasharray: 4 3 }
    .portway { fill: #dafbe1; stroke: #2da44e; stroke-width: 1.5 }
    .forward, .reply, .aside { fill: none; stroke-width: 2 }
    .forward { stroke: #0969da } .forward-head { fill: #0969da }
    .reply { stroke: #8250df } .reply-head { fill: #8250df }
    .aside { stroke: #818b98; stroke-width: 1.5; stroke-dasharray: 4 3 } .aside-head { fill: #818b98 }
  ";

/// The columns: left edge and width. Names are as wide as the widest likely font makes them.
const CLIENT: Span = (24, 78);
const HOST: Span = (122, 668);
const EXTERNAL: Span = (132, 84);
const BRIDGE: Span = (670, 54);
const VETH: Span = (738, 42);
const CONTAINER: Span = (810, 86);

/// Where something starts and how far it goes, across or down.
type Span = (i32, i32);

fn draw() -> String {
    let mut svg = Svg::new(WIDTH, HEIGHT, TITLE, STYLE);
    svg.rect("page", Area::new(0, 0, WIDTH, HEIGHT).inset(), 10);
    without(&mut svg, 22);
    with(&mut svg, 264);
    legend(&mut svg, 556);
    svg.finish(&["forward", "reply", "aside"])
}

fn cell((x, w): Span, (y, h): Span) -> Area {
    Area::new(x, y, w, h)
}

fn middle((edge, extent): Span) -> i32 {
    edge + extent / 2
}

/// A box with a name and, below, what it does.
fn labelled(svg: &mut Svg, class: &str, area: Area, name: &str, details: &[&str]) {
    svg.rect(class, area, 6);
    lines(svg, area, Text::Name, name, details);
}

fn lines(svg: &mut Svg, area: Area, text: Text, name: &str, details: &[&str]) {
    const LEADING: i32 = 15;
    let count = i32::try_from(details.len()).unwrap_or_default();
    let x = area.x + area.w / 2;
    let mut y = area.y + area.h / 2 + 4 - count * LEADING / 2;
    svg.centred(text, x, y, name);
    for detail in details {
        y += LEADING;
        svg.centred(Text::Detail, x, y, detail);
    }
}

fn without(svg: &mut Svg, top: i32) {
    svg.heading(
        24,
        top + 16,
        "Without portway",
        "every packet, there and back, walks the whole of the kernel's path",
    );

    let there: Span = (top + 56, 62);
    let back: Span = (top + 142, 62);
    let both: Span = (there.0, back.0 + back.1 - there.0);
    svg.rect("host", Area::new(HOST.0, top + 32, HOST.1, 184), 8);
    svg.text(Text::Detail, HOST.0 + 10, top + 48, "host");

    labelled(svg, "end", cell(CLIENT, both), "client", &[]);
    labelled(
        svg,
        "device",
        cell(EXTERNAL, both),
        "external",
        &["interface"],
    );
    labelled(svg, "device", cell(BRIDGE, both), "bridge", &[]);
    labelled(svg, "device", cell(VETH, both), "veth", &[]);
    labelled(svg, "end", cell(CONTAINER, both), "container", &["eth0"]);

    let stages: [(Span, &str, &[&str]); 4] = [
        ((232, 98), "PREROUTING", &["conntrack", "DNAT"]),
        ((344, 74), "routing", &[]),
        ((432, 108), "FORWARD", &["DOCKER-USER", "DOCKER"]),
        ((554, 100), "POSTROUTING", &[]),
    ];
    stages_between(svg, "forward", there, stages);
    // The reply meets the same stages in the same order, that is, from the right.
    let stages: [(Span, &str, &[&str]); 4] = [
        ((232, 100), "POSTROUTING", &["undoes DNAT"]),
        ((346, 108), "FORWARD", &["DOCKER-USER", "DOCKER"]),
        ((468, 74), "routing", &[]),
        ((556, 98), "PREROUTING", &["conntrack"]),
    ];
    stages_between(svg, "reply", back, stages);
}

/// A row of netfilter's stages between the interfaces, and the way through them.
fn stages_between(svg: &mut Svg, class: &str, row: Span, stages: [(Span, &str, &[&str]); 4]) {
    for (column, name, details) in stages {
        labelled(svg, "stage", cell(column, row), name, details);
    }
    let stages = stages.map(|(column, ..)| column);
    let way = [CLIENT, EXTERNAL]
        .into_iter()
        .chain(stages)
        .chain([BRIDGE, VETH, CONTAINER]);
    hops(svg, class, middle(row), &way.collect::<Vec<_>>());
}

/// Arrows between neighbouring columns; a reply's point to the left.
fn hops(svg: &mut Svg, class: &str, y: i32, columns: &[Span]) {
    for pair in columns.windows(2) {
        let (from, to) = ((pair[0].0 + pair[0].1, y), (pair[1].0, y));
        svg.arrow(
            class,
            &if class == "reply" {
                [to, from]
            } else {
                [from, to]
            },
        );
    }
}

fn with(svg: &mut Svg, top: i32) {
    svg.heading(
        24,
        top + 16,
        "With portway",
        "rewritten where it comes in, and handed straight on",
    );

    let there: Span = (top + 56, 58);
    let back: Span = (top + 132, 58);
    let slow: Span = (top + 208, 42);
    let both: Span = (there.0, slow.0 + slow.1 - there.0);
    svg.rect("host", Area::new(HOST.0, top + 32, HOST.1, 230), 8);
    svg.text(Text::Detail, HOST.0 + 10, top + 48, "host");

    labelled(svg, "end", cell(CLIENT, both), "client", &[]);
    labelled(
        svg,
        "device",
        cell(EXTERNAL, both),
        "external",
        &["interface"],
    );
    labelled(
        svg,
        "device",
        cell(VETH, (back.0, slow.0 + slow.1 - back.0)),
        "veth",
        &[],
    );
    labelled(svg, "end", cell(CONTAINER, both), "container", &["eth0"]);

    let program: Span = (232, 144);
    svg.rect("portway", cell(program, there), 6);
    lines(
        svg,
        cell(program, there),
        Text::Code,
        "portway_forward",
        &["TC ingress"],
    );
    let y = middle(there);
    hops(svg, "forward", y, &[CLIENT, EXTERNAL, program, CONTAINER]);
    svg.centred(Text::Code, 593, y - 8, "bpf_redirect_peer");

    let program: Span = (580, 144);
    svg.rect("portway", cell(program, back), 6);
    lines(
        svg,
        cell(program, back),
        Text::Code,
        "portway_reply",
        &["TC ingress"],
    );
    let y = middle(back);
    hops(
        svg,
        "reply",
        y,
        &[CLIENT, EXTERNAL, program, VETH, CONTAINER],
    );
    svg.centred(Text::Code, 398, y - 8, "bpf_redirect_neigh");

    let path: Span = (232, 492);
    svg.rect("idle", cell(path, slow), 6);
    let what = "netfilter, routing, bridge: only what portway leaves to the kernel, unmodified";
    lines(svg, cell(path, slow), Text::Detail, what, &[]);
    hops(svg, "aside", middle(slow), &[EXTERNAL, path, VETH]);
}

fn legend(svg: &mut Svg, y: i32) {
    let entries = [
        ("forward", "client to container"),
        ("reply", "container to client"),
        ("aside", "everything else, both ways"),
    ];
    let mut x = 176;
    for (class, words) in entries {
        svg.arrow(class, &[(x, y - 4), (x + 30, y - 4)]);
        svg.text(Text::Detail, x + 38, y, words);
        x += 190;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_in_the_repository_is_the_one_drawn_here() {
        let checked_in = fs::read_to_string(path()).unwrap_or_default();
        assert!(
            checked_in == draw(),
            "docs/packet-way.svg is out of date: run `cargo xtask diagram`"
        );
    }
}
