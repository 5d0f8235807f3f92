//! The picture of how the time grows with the crowd.

use plotters::prelude::*;
use std::error::Error;
use std::path::Path;
use updraft_protocol::simulation::Report;

const SIZE: (u32, u32) = (860, 340);
const FONT: &str = "sans-serif";
const BLUE: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const ORANGE: RGBColor = RGBColor(0xe0, 0x7b, 0x1a);
const RED: RGBColor = RGBColor(0xb8, 0x2e, 0x2e);

/// A curve: its name, its colour, and the number it shows of a report.
type Curve = (&'static str, RGBColor, fn(&Report) -> f64);

const TIMES: &[Curve] = &[
    ("last", RED, |report| report.last),
    ("99 of 100", ORANGE, |report| report.p99),
    ("half", BLUE, |report| report.median),
];
const COPIES: &[Curve] = &[
    ("sent in all", ORANGE, |report| report.seeds_sent),
    ("until every piece had reached somebody", BLUE, |report| report.first_copy),
];

/// Draws the crowds, by their leechers, into an SVG file.
pub(crate) fn draw(file: &Path, points: &[(usize, Report)]) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(SIZE.0 / 2);
    chart(&left, "players done, over the least time possible", 1.0, TIMES, points)?;
    chart(&right, "copies sent by the seed", 0.0, COPIES, points)?;
    root.present()?;
    Ok(())
}

fn chart(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    line_at: f64,
    curves: &[Curve],
    points: &[(usize, Report)],
) -> Result<(), Box<dyn Error>> {
    let crowds = || points.iter().map(|&(leechers, _)| count(leechers));
    let (least, most) = (crowds().fold(f64::MAX, f64::min), crowds().fold(1.0, f64::max));
    let values = curves.iter().flat_map(|(_, _, of)| points.iter().map(move |(_, one)| of(one)));
    let top = values.fold(line_at, f64::max) * 1.35;
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 16))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(40)
        .build_cartesian_2d((least * 0.8..most * 1.25).log_scale(), 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc("players")
        .label_style((FONT, 12))
        .x_label_formatter(&|players| format!("{players:.0}"))
        .y_label_formatter(&|value| format!("{value:.1}"))
        .light_line_style(WHITE)
        .bold_line_style(BLACK.mix(0.1))
        .draw()?;
    if line_at > 0.0 {
        let ends = [(least * 0.8, line_at), (most * 1.25, line_at)];
        chart.draw_series(LineSeries::new(ends, BLACK.mix(0.5)))?;
    }
    for &(name, colour, of) in curves {
        let line = || points.iter().map(|(leechers, one)| (count(*leechers), of(one)));
        chart
            .draw_series(LineSeries::new(line(), colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        chart.draw_series(line().map(|point| Circle::new(point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .label_font((FONT, 12))
        .draw()?;
    Ok(())
}

#[allow(clippy::cast_precision_loss)] // crowds are far below 2^52
fn count(leechers: usize) -> f64 {
    leechers as f64
}
