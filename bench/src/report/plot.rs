//! A percentile plot as SVG: percentiles on a scale of nines, latency on a log scale, a line for each series.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use plotters::prelude::*;

use super::{Series, microseconds};

/// Draws the series into an SVG file.
pub fn plot(path: &Path, title: &str, series: &[Series]) -> Result<()> {
    let drawn: Vec<&Series> = series.iter().filter(|series| !series.total.is_empty()).collect();
    ensure!(!drawn.is_empty(), "there is nothing to plot in \"{title}\"");
    draw(path, title, &drawn)
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("cannot draw {}", path.display()))
}

fn draw(path: &Path, title: &str, series: &[&Series]) -> Result<(), Box<dyn std::error::Error>> {
    let nines = series.iter().map(|series| nines_max(&series.total)).max().unwrap_or(1);
    let floor = series.iter().map(|series| microseconds(series.total.min_nz())).fold(f64::INFINITY, f64::min);
    let ceiling = series.iter().map(|series| microseconds(series.total.max())).fold(1.0, f64::max);
    let low = floor.max(0.1) * 0.8;
    let high = ceiling * 1.2;
    let root = SVGBackend::new(path, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    let (plot_area, legend_area) = root.split_vertically(HEIGHT - legend_height(series.len()));
    let mut chart = ChartBuilder::on(&plot_area)
        .caption(title, ("sans-serif", 24))
        .margin(16)
        .margin_right(48)
        .x_label_area_size(48)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..f64::from(nines), (low..high).log_scale())?;
    chart
        .configure_mesh()
        .x_labels(usize::from(nines) + 1)
        .x_label_formatter(&|nines| percentile_label(*nines))
        .y_label_formatter(&|latency| latency_label(*latency))
        .x_desc("percentile")
        .y_desc("latency, µs")
        .label_style(("sans-serif", 16))
        .axis_desc_style(("sans-serif", 18))
        .light_line_style(RGBColor(235, 235, 235))
        .bold_line_style(RGBColor(205, 205, 205))
        .draw()?;
    for (index, series) in series.iter().enumerate() {
        let style = ShapeStyle { color: color(index), filled: false, stroke_width: 2 };
        chart.draw_series(LineSeries::new(points(&series.total, nines), style))?;
        let y = 10 + ROW_HEIGHT * i32::try_from(index)?;
        legend_area.draw(&PathElement::new(vec![(100, y + 8), (136, y + 8)], style.stroke_width(4)))?;
        let text = format!("{}   (p50 {}, p99 {})", series.name, value_at(series, 0.5), value_at(series, 0.99));
        legend_area.draw(&Text::new(text, (148, y), ("sans-serif", 16)))?;
    }
    root.present()?;
    Ok(())
}

fn value_at(series: &Series, quantile: f64) -> String {
    format!("{:.1} µs", microseconds(series.total.value_at_quantile(quantile)))
}

/// The line of a histogram: x counts the nines, so 90 % is 1 and 99.9 % is 3.
fn points(histogram: &Histogram<u64>, nines: u8) -> Vec<(f64, f64)> {
    (0..=u32::from(nines) * POINTS_PER_NINE)
        .map(|step| {
            let x = f64::from(step) / f64::from(POINTS_PER_NINE);
            let quantile = 1.0 - 10_f64.powf(-x);
            (x, microseconds(histogram.value_at_quantile(quantile).max(1)))
        })
        .take_while(|(x, _)| *x <= f64::from(nines_max(histogram)))
        .collect()
}

/// As many nines as the histogram has values for: a thousand values know 99.9 %.
fn nines_max(histogram: &Histogram<u64>) -> u8 {
    let digits = histogram.len().max(10).ilog10();
    u8::try_from(digits).unwrap_or(NINES_MAX).clamp(1, NINES_MAX)
}

fn percentile_label(nines: f64) -> String {
    let decimals = (nines.round() - 2.0).max(0.0) as usize;
    format!("{:.decimals$} %", 100.0 * (1.0 - 10_f64.powf(-nines)))
}

fn latency_label(latency: f64) -> String {
    if latency < 10.0 { format!("{latency:.1}") } else { format!("{latency:.0}") }
}

fn legend_height(rows: usize) -> u32 {
    let rows = i32::try_from(rows).unwrap_or(i32::MAX / ROW_HEIGHT - 1);
    u32::try_from(rows * ROW_HEIGHT + 24).unwrap_or(HEIGHT / 2).min(HEIGHT / 2)
}

/// Colours that stay apart for colour-blind eyes (Okabe and Ito).
fn color(index: usize) -> RGBAColor {
    const PALETTE: [(u8, u8, u8); 8] = [
        (0, 114, 178),
        (213, 94, 0),
        (0, 158, 115),
        (204, 121, 167),
        (230, 159, 0),
        (86, 180, 233),
        (0, 0, 0),
        (150, 140, 20),
    ];
    let (red, green, blue) = PALETTE[index % PALETTE.len()];
    RGBColor(red, green, blue).into()
}

const WIDTH: u32 = 1100;
const HEIGHT: u32 = 760;
const ROW_HEIGHT: i32 = 24;
const POINTS_PER_NINE: u32 = 50;
const NINES_MAX: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::ramp;

    #[test]
    fn labels_are_percentiles() {
        let labels: Vec<_> = (0..=5).map(|nines| percentile_label(f64::from(nines))).collect();
        assert_eq!(labels, ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"]);
    }

    #[test]
    fn a_line_ends_where_its_knowledge_ends() {
        let last = *points(&ramp("short", 100).total, 4).last().expect("a line has points");
        assert!((last.0 - 2.0).abs() < 1e-9);
        assert!((last.1 - 99.0).abs() < 1.5, "{last:?}");
    }

    #[test]
    fn every_series_is_in_the_legend() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("plot.svg");
        plot(&path, "Title", &[ramp("first", 2000), ramp("second", 500)]).expect("drawable");
        let svg = std::fs::read_to_string(&path).expect("readable");
        for word in ["Title", "first", "second", "99.9 %", "latency"] {
            assert!(svg.contains(word), "{word} is missing");
        }
    }

    #[test]
    fn nothing_is_not_a_plot() {
        assert!(plot(Path::new("/nowhere.svg"), "empty", &[Series::of("none", &[])]).is_err());
    }
}
