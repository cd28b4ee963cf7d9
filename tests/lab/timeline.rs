//! Draws what happened as one SVG picture that needs nothing else: a lane per host with authority, address and
//! route, a lane for the API, one for the client's losses.

use std::fmt::Write;

use crate::pinger::Gap;

/// A stretch of time, in milliseconds.
pub type Stretch = (u64, u64);

/// Everything that is drawn.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// The heading.
    pub title: String,
    /// A line below it.
    pub subtitle: String,
    /// Begin and end.
    pub span: Stretch,
    /// One lane per host.
    pub hosts: Vec<Lane>,
    /// When the API as a whole did not answer.
    pub api_down: Vec<Stretch>,
    /// Lost packets.
    pub gaps: Vec<Gap>,
    /// What was done, in order.
    pub acts: Vec<Act>,
}

/// One host's lane.
#[derive(Clone, Debug, Default)]
pub struct Lane {
    /// The node's name.
    pub name: String,
    /// When it had authority.
    pub authority: Vec<Stretch>,
    /// When the address was on its NIC.
    pub address: Vec<Stretch>,
    /// When the failover IP was routed to it.
    pub route: Vec<Stretch>,
    /// When it had no power.
    pub off: Vec<Stretch>,
    /// When its foip was stopped or dead.
    pub stopped: Vec<Stretch>,
    /// When it made route calls.
    pub calls: Vec<u64>,
}

/// Something that was done to the hosts.
#[derive(Clone, Debug, Default)]
pub struct Act {
    /// When.
    pub at: u64,
    /// A few words.
    pub title: String,
    /// What came of it.
    pub result: String,
    /// Was the bar met?
    pub met: bool,
}

const WIDTH: f64 = 1600.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 128.0;
const LANE: f64 = 92.0;
const ROW: f64 = 18.0;

const STYLE: &str = "\
text{font-family:'DejaVu Sans','Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2933}\
.title{font-size:24px;font-weight:600}.sub{font-size:14px;fill:#52606d}\
.name{font-size:16px;font-weight:600}.row{font-size:11px;fill:#7b8794}\
.tick{font-size:11px;fill:#7b8794}.note{font-size:11px;fill:#b42318;font-weight:600}\
.lane{fill:#f5f7fa}.grid{stroke:#e4e7eb;stroke-width:1}.act{stroke:#9aa5b1;stroke-width:1;stroke-dasharray:3 3}\
.authority{fill:#4c51bf}.address{fill:#0d9488}.route{fill:#d97706}\
.api{fill:#9fb3c8}.apidown{fill:#f7c6c1}.answer{fill:#86c79a}.lost{fill:#d92d20}.call{fill:#7c2d12}\
.chip{fill:#1f2933}.chipn{font-size:12px;font-weight:600;fill:#fff;text-anchor:middle}\
.key{font-size:13px}.met{fill:#1a7f37;font-weight:600}.missed{fill:#d92d20;font-weight:600}.dim{fill:#52606d}";

/// The picture as SVG text.
pub fn draw(picture: &Picture) -> String {
    let lanes = TOP + picture.hosts.len() as f64 * (LANE + 8.0);
    let (api, client) = (lanes, lanes + 44.0);
    let axis = client + 74.0;
    let key = axis + 50.0;
    let rows = picture.acts.len().div_ceil(2);
    let height = key + 34.0 + rows as f64 * 24.0 + 20.0;

    let mut svg = String::new();
    let pen =
        Pen { from: picture.span.0, length: picture.span.1.saturating_sub(picture.span.0).max(1) };
    put(
        &mut svg,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n\
         <defs><pattern id=\"off\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <rect width=\"8\" height=\"8\" fill=\"#cbd2d9\"/><rect width=\"4\" height=\"8\" fill=\"#b8c1cb\"/></pattern>\
         <pattern id=\"stopped\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <rect width=\"6\" height=\"6\" fill=\"#fdf0d5\"/><rect width=\"2\" height=\"6\" fill=\"#f3d9a4\"/></pattern></defs>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text class=\"title\" x=\"30\" y=\"44\">{title}</text>\n<text class=\"sub\" x=\"30\" y=\"68\">{sub}</text>\n",
            title = escape(&picture.title),
            sub = escape(&picture.subtitle),
        ),
    );
    legend(&mut svg);

    for (index, lane) in picture.hosts.iter().enumerate() {
        host(&mut svg, &pen, lane, TOP + index as f64 * (LANE + 8.0));
    }
    strip(&mut svg, &pen, "API", api, 30.0, "api", &[picture.span]);
    for stretch in &picture.api_down {
        bar(&mut svg, &pen, *stretch, api + 6.0, 18.0, "apidown", "the API does not answer");
    }
    strip(&mut svg, &pen, "client", client, 60.0, "answer", &[picture.span]);
    losses(&mut svg, &pen, &picture.gaps, client);
    time_axis(&mut svg, &pen, axis);
    acts(&mut svg, &pen, &picture.acts, axis, key);
    svg.push_str("</svg>\n");
    svg
}

/// Where times are on the paper.
struct Pen {
    from: u64,
    length: u64,
}

impl Pen {
    fn x(&self, at: u64) -> f64 {
        let part = at.saturating_sub(self.from).min(self.length) as f64 / self.length as f64;
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }
}

fn put(svg: &mut String, text: std::fmt::Arguments<'_>) {
    svg.write_fmt(text).expect("writing to a string does not fail");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn legend(svg: &mut String) {
    let mut x = LEFT;
    for (style, text) in [
        ("class=\"authority\"", "authority: may change the route"),
        ("class=\"address\"", "address on the NIC"),
        ("class=\"route\"", "routed here by the provider"),
        ("fill=\"url(#off)\"", "no power"),
        ("fill=\"url(#stopped)\"", "foip stopped or dead"),
        ("class=\"lost\"", "pings lost"),
    ] {
        put(
            svg,
            format_args!(
                "<rect x=\"{x}\" y=\"86\" width=\"22\" height=\"12\" rx=\"3\" {style}/>\
             <text class=\"row\" x=\"{tx}\" y=\"96\">{text}</text>\n",
                tx = x + 28.0,
            ),
        );
        x += 52.0 + text.len() as f64 * 6.2;
    }
    put(
        svg,
        format_args!(
            "<path class=\"call\" d=\"M {x} 86 l 10 0 l -5 11 z\"/><text class=\"row\" x=\"{tx}\" y=\"96\">route call</text>\n",
            tx = x + 16.0,
        ),
    );
}

fn bar(
    svg: &mut String,
    pen: &Pen,
    stretch: Stretch,
    y: f64,
    height: f64,
    class: &str,
    says: &str,
) {
    let (from, to) = (pen.x(stretch.0), pen.x(stretch.1));
    let width = (to - from).max(1.5);
    let seconds = stretch.1.saturating_sub(stretch.0) as f64 / 1000.0;
    let style = match class {
        "off" | "stopped" => format!("fill=\"url(#{class})\""),
        _ => format!("class=\"{class}\""),
    };
    put(
        svg,
        format_args!(
            "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\" {style}>\
         <title>{says}, {start:.2} s to {end:.2} s ({seconds:.2} s)</title></rect>\n",
            start = stretch.0.saturating_sub(pen.from) as f64 / 1000.0,
            end = stretch.1.saturating_sub(pen.from) as f64 / 1000.0,
        ),
    );
}

fn host(svg: &mut String, pen: &Pen, lane: &Lane, y: f64) {
    put(
        svg,
        format_args!(
            "<rect class=\"lane\" x=\"{LEFT}\" y=\"{y}\" width=\"{width}\" height=\"{LANE}\" rx=\"4\"/>\
         <text class=\"name\" x=\"30\" y=\"{ty}\">{name}</text>\n",
            width = WIDTH - LEFT - RIGHT,
            ty = y + 26.0,
            name = escape(&lane.name),
        ),
    );
    for stretch in &lane.off {
        bar(svg, pen, *stretch, y, LANE, "off", &format!("{} has no power", lane.name));
    }
    for stretch in &lane.stopped {
        bar(svg, pen, *stretch, y, LANE, "stopped", &format!("foip on {} does not run", lane.name));
    }
    let rows = [
        ("authority", &lane.authority, "authority"),
        ("address", &lane.address, "address on the NIC"),
        ("route", &lane.route, "routed here"),
    ];
    for (row, (class, stretches, says)) in rows.into_iter().enumerate() {
        let top = y + 14.0 + row as f64 * (ROW + 7.0);
        put(
            svg,
            format_args!(
                "<text class=\"row\" x=\"{x}\" y=\"{ty}\" text-anchor=\"end\">{class}</text>\n",
                x = LEFT - 10.0,
                ty = top + 13.0,
            ),
        );
        for stretch in stretches {
            bar(svg, pen, *stretch, top, ROW, class, says);
        }
    }
    for at in &lane.calls {
        put(
            svg,
            format_args!(
                "<path class=\"call\" d=\"M {x:.1} {top:.1} l 10 0 l -5 11 z\"><title>route call at {s:.2} s</title></path>\n",
                x = pen.x(*at) - 5.0,
                top = y + 54.0,
                s = at.saturating_sub(pen.from) as f64 / 1000.0,
            ),
        );
    }
}

fn strip(
    svg: &mut String,
    pen: &Pen,
    name: &str,
    y: f64,
    height: f64,
    class: &str,
    on: &[Stretch],
) {
    put(
        svg,
        format_args!(
            "<text class=\"name\" x=\"30\" y=\"{ty}\">{name}</text>\
         <rect class=\"lane\" x=\"{LEFT}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"4\"/>\n",
            ty = y + 21.0,
            width = WIDTH - LEFT - RIGHT,
        ),
    );
    for stretch in on {
        bar(svg, pen, *stretch, y + 6.0, 18.0, class, name);
    }
}

fn losses(svg: &mut String, pen: &Pen, gaps: &[Gap], y: f64) {
    let mut free = 0.0;
    for gap in gaps {
        bar(
            svg,
            pen,
            (gap.from, gap.to),
            y + 4.0,
            22.0,
            "lost",
            &format!("{} pings lost", gap.packets),
        );
        let text = format!("{} lost", gap.packets);
        // As wide as the words; a label that would run into the last one is left to the bar's own title.
        let (half, middle) = (text.len() as f64 * 3.4, (pen.x(gap.from) + pen.x(gap.to)) / 2.0);
        if middle - half > free {
            put(
                svg,
                format_args!(
                    "<text class=\"note\" x=\"{middle:.1}\" y=\"{ty:.1}\" text-anchor=\"middle\">{text}</text>\n",
                    ty = y + 44.0,
                ),
            );
            free = middle + half + 6.0;
        }
    }
}

fn time_axis(svg: &mut String, pen: &Pen, y: f64) {
    let step = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600]
        .into_iter()
        .find(|step| pen.length / 1000 / step <= 20)
        .unwrap_or(3600);
    for tick in 0..=(pen.length / 1000 / step) {
        let seconds = tick * step;
        put(
            svg,
            format_args!(
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y}\" y2=\"{bottom}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{ty}\" text-anchor=\"middle\">{min}:{sec:02}</text>\n",
                x = pen.x(pen.from + seconds * 1000),
                bottom = y + 6.0,
                ty = y + 19.0,
                min = seconds / 60,
                sec = seconds % 60,
            ),
        );
    }
}

fn acts(svg: &mut String, pen: &Pen, acts: &[Act], axis: f64, key: f64) {
    put(svg, format_args!("<text class=\"name\" x=\"30\" y=\"{key}\">what was done</text>\n"));
    let rows = acts.len().div_ceil(2);
    for (index, act) in acts.iter().enumerate() {
        let (x, number) = (pen.x(act.at), index + 1);
        put(
            svg,
            format_args!(
                "<line class=\"act\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{axis}\"/>\
             <circle class=\"chip\" cx=\"{x:.1}\" cy=\"{cy}\" r=\"9\"/>\
             <text class=\"chipn\" x=\"{x:.1}\" y=\"{ty}\">{number}<title>{title}</title></text>\n",
                top = TOP - 4.0,
                cy = TOP - 12.0,
                ty = TOP - 7.8,
                title = escape(&act.title),
            ),
        );
        let (column, row) = (index / rows.max(1), index % rows.max(1));
        let (kx, ky) = (30.0 + column as f64 * 785.0, key + 28.0 + row as f64 * 24.0);
        let (class, word) = if act.met { ("met", "met") } else { ("missed", "MISSED") };
        put(
            svg,
            format_args!(
                "<circle class=\"chip\" cx=\"{cx}\" cy=\"{cy}\" r=\"9\"/><text class=\"chipn\" x=\"{cx}\" y=\"{ny}\">{number}</text>\
             <text class=\"key\" x=\"{tx}\" y=\"{ky}\">{title}<tspan class=\"dim\">: {result}</tspan>\
             <tspan class=\"{class}\" dx=\"8\">{word}</tspan></text>\n",
                cx = kx + 9.0,
                cy = ky - 4.5,
                ny = ky - 0.3,
                tx = kx + 28.0,
                title = escape(&act.title),
                result = escape(&act.result),
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A made-up history with everything that can be drawn in it.
    fn story() -> Picture {
        let lane = |name: &str| Lane { name: name.into(), ..Lane::default() };
        let mut hosts = vec![lane("node-a"), lane("node-b"), lane("node-c")];
        hosts[0].authority = vec![(3_000, 30_000)];
        hosts[0].address = vec![(1_000, 30_000)];
        hosts[0].route = vec![(0, 40_500)];
        hosts[0].off = vec![(30_000, 60_000)];
        hosts[1].authority = vec![(40_000, 180_000)];
        hosts[1].address = vec![(40_000, 180_000)];
        hosts[1].route = vec![(40_500, 180_000)];
        hosts[1].stopped = vec![(80_000, 81_250)];
        hosts[1].calls = vec![40_100];
        let act =
            |at, title: &str, met| Act { at, title: title.into(), result: "1 call".into(), met };
        Picture {
            title: "foip <demo> & \"co\"".into(),
            subtitle: "three hosts".into(),
            span: (0, 180_000),
            hosts,
            api_down: vec![(100_000, 130_000)],
            gaps: vec![Gap { from: 30_000, to: 40_500, packets: 1050 }],
            acts: vec![
                act(0, "first start", true),
                act(30_000, "power & loss", true),
                act(80_000, "killed", false),
            ],
        }
    }

    #[test]
    fn the_picture_is_well_formed_and_needs_nothing_else() {
        let svg = draw(&story());
        if let Ok(path) = std::env::var("LAB_PICTURE") {
            std::fs::write(path, &svg).unwrap();
        }
        let mut reader = quick_xml::Reader::from_str(&svg);
        reader.config_mut().check_end_names = true;
        let mut rects = 0;
        loop {
            match reader.read_event().unwrap() {
                quick_xml::events::Event::Eof => break,
                quick_xml::events::Event::Start(tag) | quick_xml::events::Event::Empty(tag) => {
                    rects += usize::from(tag.name().as_ref() == "rect");
                    for attribute in tag.attributes() {
                        let attribute = attribute.unwrap();
                        assert_ne!(attribute.key.as_ref(), "href");
                    }
                }
                _ => {}
            }
        }
        assert!(rects > 20, "{rects}");
        for words in ["1050 lost", "MISSED", "node-b", "power &amp; loss", "2:30"] {
            assert!(svg.contains(words), "{words}");
        }
    }
}
