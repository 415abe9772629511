"""The loops behind `render.delineation`, compiled: where waves begin and end in samples of 2 ms.

Rows are samples and columns leads where all leads are filtered, moved or compared together, (n, 12) or, the independent
leads alone, (n, 8); it is the other way round where each lead is read by itself, (12, n). All of them are float32.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from render.jit import jit
from render.record import HIGH_RATE_HZ

# In samples of 2 ms, but for shares.
_INDEPENDENT = np.array([0, 1, 6, 7, 8, 9, 10, 11])  # I, II, V1 to V6: the other four leads follow from I and II
_ALIKE = 0.80  # correlation of a beat with the median beat
_FIT_HALF, _FIT_REACH = 40, 12  # what of a complex has to fit, and how far it is moved for it
_QRS_SHARE = 0.010  # of its height per 4 ms: the QRS lies where it is steeper
_CALM = 8  # so long below that slope, and it has ended
_FLANK_SHARE = 0.3  # of a flank's slope: what is flatter is no longer P or T
_EXTENSION = 60  # so long the level before the QRS goes on where P is looked for
# What lies between those readings and the cardiologists' marks, and between the two readings of a mark, at the median.
_ONSET_EARLIER, _END_LATER, _T_LATER, _P_LATER, _P_SHORTER = 2.0, 2.0, 8.0, 2.0, 2.5
_USUAL_GAP = -3.7
_P_SPREAD, _T_SPREAD, _MOST_GAP = 20.0, 25.0, 12.0  # limits of agreement, of leads and of readings
_SAME_HEIGHT = 0.65  # of P's height, or the inverse: what else may be the same wave
_FIT, _P_REACH, _T_REACH = 0.6, 10, 15  # of a wave of the median beat to a single beat, and how far it is moved


def _butterworth(hertz: float, highpass: bool = False) -> NDArray[np.float64]:
    """(5,) b0, b1, b2, a1, a2 of a second-order Butterworth filter at `HIGH_RATE_HZ` (bilinear transform)."""
    k = math.tan(math.pi * hertz / HIGH_RATE_HZ)
    scale = 1 / (1 + math.sqrt(2) * k + k * k)
    b = [scale, -2 * scale, scale] if highpass else [k * k * scale, 2 * k * k * scale, k * k * scale]
    return np.array([*b, 2 * (k * k - 1) * scale, (1 - math.sqrt(2) * k + k * k) * scale])


_WANDER, _NOISE, _QRS, _SLOW = _butterworth(0.5, highpass=True), *(_butterworth(hertz) for hertz in (40.0, 50.0, 15.0))

# numba infers the types of all that follows.


@jit
def coarse(signal, step):  # type: ignore[no-untyped-def]
    """(12, n) -> (12, n / step): the mean of each `step` samples, one that lies across two of them in proportion."""
    rows, n = signal.shape
    means = np.zeros((rows, int(n / step + 1e-6)))
    for k in range(means.shape[1]):
        first, last = k * step, (k + 1) * step
        for i in range(int(first), min(math.ceil(last - 1e-6), n)):
            share = (min(last, i + 1.0) - max(first, float(i))) / step
            for r in range(rows):
                means[r, k] += share * signal[r, i]
    return means


@jit
def _quantile(numbers, share):  # type: ignore[no-untyped-def]
    """Of a few numbers, by numpy's linear rule."""
    ascending = numbers.copy()
    for k in range(1, ascending.size):
        value, j = ascending[k], k
        while j > 0 and ascending[j - 1] > value:
            ascending[j] = ascending[j - 1]
            j -= 1
        ascending[j] = value
    place = share * (ascending.size - 1)
    i = int(place)
    return ascending[i] + (place - i) * (ascending[min(i + 1, ascending.size - 1)] - ascending[i])


@jit
def tops(row, least, apart):  # type: ignore[no-untyped-def]
    """Samples of the local maxima of at least `least`, those left out that lie nearer than `apart` to a higher one."""
    places = np.empty(row.size, np.int64)
    count, i = 0, 1
    while i < row.size - 1:
        last = i
        while last < row.size - 1 and row[last + 1] == row[i]:
            last += 1
        if row[i] > row[i - 1] and last < row.size - 1 and row[last + 1] < row[i] and row[i] >= least:
            places[count] = (i + last) // 2
            count += 1
        i = last + 1
    places = places[:count]
    free, open_ = np.ones(count, np.bool_), np.ones(count, np.bool_)
    for _ in range(count):
        top = -1
        for j in range(count):
            if open_[j] and (top < 0 or row[places[j]] >= row[places[top]]):
                top = j
        open_[top] = False
        for j in range(count):
            if free[top] and j != top and abs(places[j] - places[top]) < apart:
                free[j] = open_[j] = False
        if not open_.any():
            break
    return places[free]


@jit
def _filter(rows, f, gain):  # type: ignore[no-untyped-def]
    """Filter the columns of (n, 12) in place, there and back, so that nothing is delayed. gain: of a constant."""
    n, leads = rows.shape
    z1, z2 = np.empty(leads), np.empty(leads)
    for way in range(2):
        start = way * (n - 1)
        for c in range(leads):  # as if it had always been what it is first
            z1[c] = (gain - f[0]) * rows[start, c]
            z2[c] = (f[2] - f[4] * gain) * rows[start, c]
        for k in range(n):
            i = n - 1 - k if way else k
            for c in range(leads):
                x = rows[i, c]
                y = f[0] * x + z1[c]
                z1[c] = f[1] * x - f[3] * y + z2[c]
                z2[c] = f[2] * x - f[4] * y
                rows[i, c] = y


@jit
def without_wander(signal):  # type: ignore[no-untyped-def]
    """(12, n) -> (n, 12) without wander, (n, 8) the independent leads without noise, too, and their slopes."""
    leads, n = signal.shape
    mv = np.empty((n, leads), np.float32)
    for i in range(n):
        for c in range(leads):
            mv[i, c] = signal[c, i] if abs(signal[c, i]) < np.inf else 0.0
    _filter(mv, _WANDER, 0.0)
    smooth = _smooth(mv)
    slopes = np.zeros(smooth.shape, np.float32)
    for i in range(1, n - 1):
        for k in range(smooth.shape[1]):
            slopes[i, k] = smooth[i + 1, k] - smooth[i - 1, k]
    return mv, smooth, slopes


@jit
def _smooth(rows):  # type: ignore[no-untyped-def]
    """(n, 12) -> (n, 8) the independent leads without muscle and mains noise."""
    smooth = np.empty((rows.shape[0], _INDEPENDENT.size), np.float32)
    for i in range(smooth.shape[0]):
        for k in range(smooth.shape[1]):
            smooth[i, k] = rows[i, _INDEPENDENT[k]]
    _filter(smooth, _NOISE, 1.0)
    return smooth


@jit
def _median(stack):  # type: ignore[no-untyped-def]
    """(rows, m) -> (m,), and the columns of `stack` sorted: odd-even transposition, which vectorises."""
    n, m = stack.shape
    for turn in range(n):
        for i in range(turn % 2, n - 1, 2):
            low, high = stack[i], stack[i + 1]
            for j in range(m):
                x, y = low[j], high[j]
                low[j] = x if x < y else y
                high[j] = y if x < y else x
    return np.float32(0.5) * (stack[(n - 1) // 2] + stack[n // 2])


@jit
def _windows(rows, firsts, size):  # type: ignore[no-untyped-def]
    """(n, leads) -> (windows, size * leads): `size` rows from each of `firsts` on."""
    leads = rows.shape[1]
    flat = rows.ravel()
    stack = np.empty((firsts.size, size * leads), np.float32)
    for k in range(firsts.size):
        stack[k] = flat[firsts[k] * leads : (firsts[k] + size) * leads]
    return stack


@jit
def align_to_template(slopes, middles):  # type: ignore[no-untyped-def]
    """Move each middle, by 24 ms at most a turn, to where its complex fits best to the median of all: three turns."""
    n, leads = slopes.shape
    size = 2 * _FIT_HALF + 1
    flat = slopes.ravel()
    middles = middles.copy()
    for _ in range(3):
        firsts = middles - _FIT_HALF
        firsts = firsts[(firsts >= 0) & (firsts + size <= n)]
        if firsts.size < 3:
            break
        usual = _median(_windows(slopes, firsts, size))
        for k in range(middles.size):
            best, place = -np.inf, middles[k]
            low = max(middles[k] - _FIT_REACH, _FIT_HALF)
            for i in range(low, min(middles[k] + _FIT_REACH, n - 1 - _FIT_HALF) + 1):
                first = (i - _FIT_HALF) * leads
                fit = np.dot(usual, flat[first : first + usual.size])
                if fit > best:
                    best, place = fit, i
            middles[k] = place
    return middles


@jit
def prevailing_beats(mv, smooth, middles, before, after, cycle):  # type: ignore[no-untyped-def]
    """Which beats are alike, how many lie whole in the record, and the median (before + after, 12) of those alike."""
    inside = (middles >= before) & (middles + after <= mv.shape[0])
    firsts = middles[inside] - before
    size, leads = before + after, mv.shape[1]
    if firsts.size == 0:
        return inside, 0, np.zeros((size, leads), np.float32)
    reach = min(before, int(0.42 * cycle))  # one cycle: the neighbours' waves do not count
    stack = _windows(smooth, firsts + before - reach, reach + min(after, int(0.58 * cycle)))
    usual = _median(stack).reshape(-1, smooth.shape[1])
    alike = np.zeros(firsts.size, np.bool_)
    for k in range(firsts.size):
        start = firsts[k] + before - reach
        alike[k] = _likeness(smooth[start : start + usual.shape[0]], usual)[0] > _ALIKE
    prevailing = inside.copy()
    prevailing[inside] = alike
    if not alike.any():
        return prevailing, firsts.size, np.zeros((size, leads), np.float32)
    return prevailing, firsts.size, _median(_windows(mv, firsts[alike], size)).reshape(size, leads)


@jit
def _low(rows, f):  # type: ignore[no-untyped-def]
    """(n, 12) -> (12, n) through a low pass."""
    low = rows.copy()
    _filter(low, f, 1.0)
    return low.T.copy()


@jit
def _without_spikes(rows):  # type: ignore[no-untyped-def]
    """(n, 12), each sample the median of the five around it: a pacemaker's spike is not the QRS."""
    n, leads = rows.shape
    calm = rows.copy()
    five = np.empty(5, np.float32)
    for i in range(2, n - 2):
        for c in range(leads):
            for k in range(5):
                value, j = rows[i - 2 + k, c], k
                while j > 0 and five[j - 1] > value:
                    five[j] = five[j - 1]
                    j -= 1
                five[j] = value
            calm[i, c] = five[2]
    return calm


@jit
def _slopes(x, wide):  # type: ignore[no-untyped-def]
    """(12, n) -> (n,) root mean square slope of the independent leads per 4 ms, averaged over `wide` samples."""
    n = x.shape[1]
    raw = np.zeros(n)
    for c in _INDEPENDENT:
        for i in range(1, n - 1):
            raw[i] += (x[c, i + 1] - x[c, i - 1]) ** 2
    raw = np.sqrt(raw / _INDEPENDENT.size)
    half = wide // 2
    mean = np.zeros(n)
    for i in range(n):
        for k in range(max(0, i - half), min(n, i + half + 1)):
            mean[i] += raw[k] / wide
    return mean


@jit
def _calm_level(slope, first, last):  # type: ignore[no-untyped-def]
    """The 30th percentile of a stretch of slopes; 0 where it is empty."""
    first, last = max(first, 0), min(last, slope.size)
    return _quantile(slope[first:last], 0.3) if last > first else 0.0


@jit
def _qrs(rows, peak):  # type: ignore[no-untyped-def]
    """Onset and end of the QRS in (n, 12), samples: where it is steep for its height, until it is calm."""
    x = _low(_without_spikes(rows), _QRS)
    slope = _slopes(x, 3)
    n = slope.size
    first, last = max(peak - 50, 0), min(peak + 50, n)
    top = first + int(np.argmax(slope[first:last]))
    height = 0.0
    for c in _INDEPENDENT:
        part = x[c, max(peak - 60, 0) : peak + 60]
        height += (part.max() - part.min()) ** 2
    limit = _QRS_SHARE * math.sqrt(height / _INDEPENDENT.size)
    before = _calm_level(slope, top - 90, top - 45) + limit
    behind = _calm_level(slope, top + 40, top + 100) + limit
    onset = end = top
    while onset > _CALM and slope[onset - _CALM : onset].max() > before:
        onset -= 1
    while end < n - _CALM - 1 and slope[end + 1 : end + 1 + _CALM].max() > behind:
        end += 1
    return onset - _ONSET_EARLIER, end + _END_LATER


@jit
def _wave_end(x, peak, reach, last, outer):  # type: ignore[no-untyped-def]
    """Where a wave of (12, n) ends: the mean of two readings, their difference, and the leads' interquartile range.

    x: without the level or line that the wave stands on. peak: of the leads together; a lead's own lies within `reach`.
    last: sample that the end lies before; outer: and within how many samples of the steepest flank. Samples; NaN where
    the wave is not seen in three leads.
    """
    feet = np.empty(x.shape[0])
    count = 0
    for c in range(x.shape[0]):
        foot = _foot(x[c], max(peak - reach, 1), min(peak + reach, last), last, outer)
        if foot == foot:
            feet[count] = foot
            count += 1
    if count < 3 or last - peak < 8:
        return np.nan, np.nan, np.nan
    feet = feet[:count]
    by_leads = _quantile(feet, 0.5)
    slope = _slopes(x, 9)
    top = peak + int(np.argmax(slope[peak : min(last, peak + outer)]))
    calm = slope[top : min(last, top + outer)].min()
    limit = calm + _FLANK_SHARE * (slope[top] - calm)
    end = top
    while end < last - 1 and slope[end] > limit:
        end += 1
    if end == last - 1:  # it goes on into the next wave
        return np.nan, np.nan, np.nan
    return 0.5 * (by_leads + end), by_leads - end, _quantile(feet, 0.75) - _quantile(feet, 0.25)


@jit
def _foot(row, first, behind, last, outer):  # type: ignore[no-untyped-def]
    """Where the tangent at the steepest flank of one lead's wave meets the level behind; NaN where there is none."""
    if behind - first < 5:
        return np.nan
    peak = first
    for i in range(first, behind):
        if abs(row[i]) > abs(row[peak]):
            peak = i
    sign = 1.0 if row[peak] >= 0 else -1.0
    at, fall = peak, 0.0
    for i in range(max(peak, 1), min(last, peak + outer, row.size - 1)):
        if sign * (row[i - 1] - row[i + 1]) > fall:
            at, fall = i, sign * (row[i - 1] - row[i + 1])
    if fall == 0.0 or last - peak < 8:
        return np.nan
    level = (sign * row[at : min(last, at + outer)]).min()
    if level < 0:  # beyond the level before the QRS: part of it is drift, part a wave of its own
        level *= 0.5
    return at + (sign * row[at] - level) / (0.5 * fall)


@jit
def _t_end(x, onset, end, last):  # type: ignore[no-untyped-def]
    """As `_wave_end`, of T in (12, n), from the marks of the QRS; last: sample that it ends before."""
    first = int(end) + 20
    flat = x.copy()
    for c in range(x.shape[0]):
        flat[c] -= x[c, max(int(onset) - 14, 0) : max(int(onset) - 4, 1)].mean()
    size = last - first
    if size < 20:
        return np.nan, np.nan, np.nan
    peak, most = first, -1.0
    for i in range(size):
        height = 0.0
        for c in _INDEPENDENT:
            height += flat[c, first + i] ** 2
        height *= math.sin(math.pi * (i + 1) / (size + 1)) ** 2  # not the end of ST, not the next P
        if height > most:
            peak, most = first + i, height
    return _wave_end(flat, peak, 40, last, x.shape[1])


@jit
def _p_peak(x, first, last):  # type: ignore[no-untyped-def]
    """Sample of (12, n) between `first` and `last` that rises most above those 56 ms around."""
    n = x.shape[1]
    peak, most = first, -1.0
    for i in range(first, last):
        height = 0.0
        for c in _INDEPENDENT:
            height += (x[c, i] - 0.5 * (x[c, max(i - 28, 0)] + x[c, min(i + 28, n - 1)])) ** 2
        if height > most:
            peak, most = i, height
    return peak


@jit
def _p(rows, onset, first):  # type: ignore[no-untyped-def]
    """Onset, end, and difference of readings and interquartile range of the onset, of P between `first` and the QRS."""
    qrs = round(onset)
    if qrs - 10 - first < 25:
        return np.nan, np.nan, np.nan, np.nan
    extended = np.empty(
        (qrs + _EXTENSION, rows.shape[1]), np.float32
    )  # the level before the QRS goes on: its slope is no P
    for c in range(rows.shape[1]):
        for i in range(extended.shape[0]):
            extended[i, c] = rows[min(i, qrs - 1), c]
    x = _low(extended, _SLOW)
    peak = _p_peak(x, first, qrs - 10)
    low, high = max(first - 6, peak - 60, 0), min(qrs, peak + 60)
    line = x[:, low : high + 1].copy()
    size = line.shape[1]
    for c in range(x.shape[0]):
        start, step = line[c, 0], (line[c, -1] - line[c, 0]) / (size - 1)
        for i in range(size):
            line[c, i] -= start + i * step
    end, _, _ = _wave_end(line, peak - low, 22, size - 1, 45)
    mirror = np.empty(line.shape, np.float32)
    for i in range(size):
        mirror[:, i] = line[:, size - 1 - i]
    begin, gap, lead_range = _wave_end(mirror, size - 1 - (peak - low), 22, size - 1 - max(first - low, 0), 45)
    return low + size - 1 - begin, low + end, gap, lead_range


@jit
def beat_marks(rows, peak, cycle):  # type: ignore[no-untyped-def]
    """(5,) marks of a beat (n, 12) in samples, and (4,) spread and gap of the onset of P and of the end of T."""
    n = rows.shape[0]
    marks, agreement = np.full(5, np.nan), np.full(4, np.nan)
    onset, end = _qrs(rows, peak)
    marks[2], marks[3] = onset, end
    last = min(n - 2, peak + 300, peak + cycle - min(int(0.16 * cycle), 70))
    t_end, gap, lead_range = _t_end(_low(rows, _SLOW), onset, end, last)
    if t_end == t_end:
        marks[4] = t_end + _T_LATER
        agreement[2], agreement[3] = lead_range, abs(gap - _USUAL_GAP)
    first = max(0, int(onset) - 170)
    if t_end == t_end:
        first = max(first, int(t_end) - cycle - 5)
    p_onset, p_end, gap, lead_range = _p(rows, onset, first)
    if p_onset == p_onset:
        marks[0], marks[1] = p_onset + _P_LATER, min(p_end - _P_SHORTER, onset)
        agreement[0], agreement[1] = lead_range, abs(gap - _USUAL_GAP)
    return marks, agreement


@jit
def leave_out(marks, agreement):  # type: ignore[no-untyped-def]
    """NaN for the marks that the leads or the two readings do not agree about; see `beat_marks`."""
    if not (agreement[0] <= _P_SPREAD and agreement[1] <= _MOST_GAP):
        marks[:2] = np.nan
    if not (agreement[2] <= _T_SPREAD and agreement[3] <= _MOST_GAP):
        marks[4] = np.nan


@jit
def _shift(own, usual, first, last, reach):  # type: ignore[no-untyped-def]
    """How many samples a wave of the median beat (n, 8), from `first` to `last` - 1, has to be moved, by `reach` at
    most, to fit best to `own` (n, 8), and the correlation there."""
    first, last = max(first, reach), min(last, usual.shape[0] - reach)
    if last - first < 20:
        return 0, 0.0
    wave = usual[first:last]
    best, place = -1.0, 0
    for step in (3, 1):  # every third, then the neighbours of the best: waves are smooth
        middle, far = (0, reach) if step == 3 else (place, 2)
        for lag in range(max(middle - far, -reach), min(middle + far, reach) + 1, step):
            fit, _ = _likeness(own[first + lag : last + lag], wave)
            if fit > best:
                best, place = fit, lag
    return place, best


@jit
def every_beat(mv, smooth, middles, prevailing, median, peak, cycle, own):  # type: ignore[no-untyped-def]
    """(beats, 5) `WAVES` of every beat, samples of the record. own: (5,) of the median beat (n, 12).

    A beat of the prevailing kind has the median's waves, moved to where they fit; one that does not fit is left out. Of
    any other beat, QRS and T are read as in the median, and P is left out.
    """
    size = median.shape[0]
    usual = _smooth(median)
    marks = np.full((middles.size, 5), np.nan)
    for b in range(middles.size):
        start = middles[b] - peak
        if start < 0 or start + size > mv.shape[0]:
            continue
        if not prevailing[b]:
            row, agreement = beat_marks(mv[start : start + size], peak, cycle)
            leave_out(row, agreement)
            row[:2] = np.nan
            marks[b] = row + start
            continue
        part = smooth[start : start + size]
        marks[b] = own + start
        if own[0] == own[0]:
            lag, fit = _shift(part, usual, int(own[0]) - 10, int(own[2]) - 3, _P_REACH)
            marks[b, :2] += lag if fit >= _FIT else np.nan
        if own[4] == own[4]:
            lag, fit = _shift(part, usual, int(own[3]) + 20, int(own[4]) + 10, _T_REACH)
            marks[b, 4] += lag if fit >= _FIT else np.nan
    return marks


@jit
def p_again(smooth, middles, median, peak, marks):  # type: ignore[no-untyped-def]
    """(beats,) correlation of each beat with the median (n, 12) from the onset of P to the QRS, and P's height, mV."""
    if marks[0] != marks[0]:
        return np.zeros(0), 0.0
    first, last = max(int(marks[0]) - 10, 0), int(marks[2]) - 3
    if last - first < 20:
        return np.zeros(0), 0.0
    height = 0.0
    for c in (0, 1, 5, 6):  # I, II, aVF and V1
        part = median[first:last, c]
        height = max(height, part.max() - part.min())
    usual = _smooth(median)[first:last]
    again = np.empty(middles.size)
    for b in range(middles.size):
        start = middles[b] - peak + first
        again[b], _ = _likeness(smooth[start : start + last - first], usual)
    return again, height


@jit
def _likeness(own, usual):  # type: ignore[no-untyped-def]
    """Pearson correlation of two (n, leads), each lead against its own mean, and by what the first is the higher."""
    n, leads = own.shape
    sums = np.zeros((5, leads))
    for i in range(n):
        for c in range(leads):
            x, y = own[i, c], usual[i, c]
            sums[0, c] += x
            sums[1, c] += y
            sums[2, c] += x * x
            sums[3, c] += y * y
            sums[4, c] += x * y
    xx = yy = xy = 0.0
    for c in range(leads):
        xx += sums[2, c] - sums[0, c] ** 2 / n
        yy += sums[3, c] - sums[1, c] ** 2 / n
        xy += sums[4, c] - sums[0, c] * sums[1, c] / n
    return (xy / math.sqrt(xx * yy), xy / yy) if xx > 0 and yy > 0 else (0.0, 0.0)


@jit
def p_elsewhere(median, marks, cycle):  # type: ignore[no-untyped-def]
    """How alike to P is what most resembles it, in shape and in height, between this QRS and the next P: in flutter,
    another wave of the same kind."""
    usual = _smooth(median)
    first, last = max(int(marks[0]) - 6, 0), int(min(marks[1] + 6, marks[2]))
    most = 0.0
    for start in range(int(marks[3]) + 10, min(usual.shape[0] - (last - first), int(marks[0]) + cycle - 60), 2):
        fit, gain = _likeness(usual[start : start + last - first], usual[first:last])
        if _SAME_HEIGHT < gain < 1 / _SAME_HEIGHT and fit > most:
            most = fit
    return most
