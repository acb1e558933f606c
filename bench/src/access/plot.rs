//! Results as pictures: the mean of an access against what varies.

use super::plan::Cell;
use super::workload::Workload;
use super::{Measured, Way};
use plotters::prelude::*;
use std::io;
use std::path::Path;

/// A picture: the cells that differ in one number.
struct Picture {
    file: &'static str,
    title: &'static str,
    axis: &'static str,
    /// The number.
    of: fn(&Cell) -> usize,
    /// Makes it equal in all cells, to find those that differ in nothing else.
    same: fn(&mut Cell),
}

const PICTURES: [Picture; 3] = [
    Picture {
        file: "resident.svg",
        title: "A random access, by the share of the data that is resident",
        axis: "% resident",
        of: |cell| cell.resident_percent,
        same: |cell| cell.resident_percent = 0,
    },
    Picture {
        file: "threads.svg",
        title: "A random access, by the number of threads, half resident",
        axis: "threads",
        of: |cell| cell.threads,
        same: |cell| cell.threads = 0,
    },
    Picture {
        file: "regions.svg",
        title: "A random access, by the number of regions, half resident",
        axis: "regions (log)",
        of: |cell| cell.regions,
        same: |cell| cell.regions = 0,
    },
];

/// A line and its place.
type Line = (Way, Vec<(f64, f64)>);

/// Draws the pictures for which there are cells.
pub fn draw(results: &[Measured], folder: &Path) -> io::Result<()> {
    for picture in &PICTURES {
        let lines = lines(results, picture);
        if lines.iter().any(|(_, points)| points.len() > 1) {
            picture.draw(&lines, &folder.join(picture.file)).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// The largest set of uniform cells that differ in the picture's number alone, as lines.
fn lines(results: &[Measured], picture: &Picture) -> Vec<Line> {
    let uniform = || results.iter().filter(|one| one.cell.workload == Workload::Uniform);
    let alike = |of: &Measured| -> Vec<&Measured> {
        uniform().filter(|one| one.cell.is_like(&of.cell, picture.same)).collect()
    };
    let mut set = uniform().map(alike).max_by_key(Vec::len).unwrap_or_default();
    set.sort_by_key(|one| (picture.of)(&one.cell));
    let line = |way| {
        let point = |one: &&Measured| {
            Some(((picture.of)(&one.cell) as f64, one.figure(way, |figures| figures.mean)? / 1e3))
        };
        (way, set.iter().filter_map(point).collect())
    };
    Way::ALL.into_iter().map(line).collect()
}

impl Picture {
    fn draw(&self, lines: &[Line], file: &Path) -> Result<(), String> {
        let is_log = self.axis.contains("log");
        let across = |x: f64| if is_log { x.log10() } else { x };
        let points = || lines.iter().flat_map(|(_, points)| points);
        let (least, most) = points().fold((f64::MAX, f64::MIN), |(least, most), (x, _)| {
            (least.min(across(*x)), most.max(across(*x)))
        });
        let top = points().map(|(_, y)| *y).fold(0.0, f64::max) * 1.1;
        let area = SVGBackend::new(file, (720, 420)).into_drawing_area();
        let told = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        area.fill(&WHITE).map_err(|error| told(&error))?;
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(least..most, 0.0..top)
            .map_err(|error| told(&error))?;
        let label = |x: &f64| format!("{:.0}", if is_log { 10_f64.powf(*x) } else { *x });
        chart
            .configure_mesh()
            .x_desc(self.axis)
            .y_desc("µs an access")
            .x_label_formatter(&label)
            .draw()
            .map_err(|error| told(&error))?;
        for (number, (way, points)) in lines.iter().enumerate().filter(|(_, (_, p))| !p.is_empty())
        {
            let color = Palette99::pick(number).stroke_width(2);
            let points = points.iter().map(|(x, y)| (across(*x), *y));
            chart
                .draw_series(LineSeries::new(points, color).point_size(3))
                .map_err(|error| told(&error))?
                .label(way.name())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()
            .map_err(|error| told(&error))?;
        area.present().map_err(|error| told(&error))
    }
}
