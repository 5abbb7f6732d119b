//! Just enough SVG for a picture of boxes and arrows.

use std::fmt::{self, Write as _};

/// A rectangle, in pixels.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    /// Left edge.
    pub x: i32,
    /// Upper edge.
    pub y: i32,
    /// Width.
    pub w: i32,
    /// Height.
    pub h: i32,
}

impl Area {
    /// From left, top, width and height.
    pub const fn new(x: i32, y: i32, w: i32, h: i32) -> Self {
        Self { x, y, w, h }
    }

    /// The same, with room for half of its border.
    pub const fn inset(self) -> Self {
        Self::new(self.x + 1, self.y + 1, self.w - 2, self.h - 2)
    }
}

/// How a line of text looks: one of the classes in the picture's style sheet.
#[derive(Clone, Copy, Debug)]
pub enum Text {
    /// A box's name.
    Name,
    /// A name from a program's text.
    Code,
    /// What a box does.
    Detail,
}

impl Text {
    fn class(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Code => "code",
            Self::Detail => "detail",
        }
    }
}

/// A picture in the making.
pub struct Svg {
    width: i32,
    height: i32,
    title: &'static str,
    style: &'static str,
    body: String,
}

impl Svg {
    /// An empty picture. The title is what a screen reader says.
    pub fn new(width: i32, height: i32, title: &'static str, style: &'static str) -> Self {
        Self {
            width,
            height,
            title,
            style,
            body: String::new(),
        }
    }

    /// A box with rounded corners, of a class in the style sheet.
    pub fn rect(&mut self, class: &str, area: Area, radius: i32) {
        let Area { x, y, w, h } = area;
        self.line(format_args!(
            r#"<rect class="{class}" x="{x}" y="{y}" width="{w}" height="{h}" rx="{radius}"/>"#
        ));
    }

    /// A heading, and a remark beside it that keeps its distance whatever the font.
    pub fn heading(&mut self, x: i32, y: i32, words: &str, remark: &str) {
        self.line(format_args!(
            r#"<text class="heading" x="{x}" y="{y}">{}<tspan class="remark" dx="14">{}</tspan></text>"#,
            Escaped(words),
            Escaped(remark)
        ));
    }

    /// A line of text that starts at a point.
    pub fn text(&mut self, text: Text, x: i32, y: i32, words: &str) {
        self.line(format_args!(
            r#"<text class="{}" x="{x}" y="{y}">{}</text>"#,
            text.class(),
            Escaped(words)
        ));
    }

    /// A line of text around a point.
    pub fn centred(&mut self, text: Text, x: i32, y: i32, words: &str) {
        self.line(format_args!(
            r#"<text class="{} centred" x="{x}" y="{y}">{}</text>"#,
            text.class(),
            Escaped(words)
        ));
    }

    /// A line through points, with a head at its end.
    pub fn arrow(&mut self, class: &str, points: &[(i32, i32)]) {
        let points: Vec<_> = points.iter().map(|(x, y)| format!("{x},{y}")).collect();
        self.line(format_args!(
            r#"<polyline class="{class}" points="{}" marker-end="url(#{class}-head)"/>"#,
            points.join(" ")
        ));
    }

    /// The picture's text; the heads of the arrows are in the colours of the classes named.
    pub fn finish(self, arrows: &[&str]) -> String {
        let Self {
            width,
            height,
            title,
            style,
            body,
        } = self;
        let heads: String = arrows
            .iter()
            .map(|class| {
                format!(
                    "    <marker id=\"{class}-head\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" \
                     markerHeight=\"8\" markerUnits=\"userSpaceOnUse\" orient=\"auto\">\
                     <path class=\"{class}-head\" d=\"M0,0 L8,4 L0,8 z\"/></marker>\n"
                )
            })
            .collect();
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\">\n  <title>{}</title>\n  <style>{style}</style>\n  \
             <defs>\n{heads}  </defs>\n{body}</svg>\n",
            Escaped(title)
        )
    }

    fn line(&mut self, element: fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.body, "  {element}");
    }
}

struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_break_the_picture() {
        let mut svg = Svg::new(10, 10, "a & b", "");
        svg.text(Text::Name, 1, 2, "<veth>");
        let text = svg.finish(&[]);
        assert!(text.contains("<title>a &amp; b</title>"));
        assert!(text.contains(">&lt;veth&gt;</text>"));
    }
}
