// The order in which a product's blocks are visited. Usually one output panel passes all rows,
// which the second-level cache keeps. Where they are too many for it, a group of panels takes their
// place there, and rows pass once a group.
template <class Body>
INLINE void each_block(const HalfProduct& a, Body body) {
  constexpr ptrdiff_t kRowBytes = 640 << 10, kGroupBytes = 512 << 10;
  const ptrdiff_t row_bytes = static_cast<ptrdiff_t>(a.rows) * a.n_panels * 64;
  const ptrdiff_t panel_bytes = static_cast<ptrdiff_t>(a.n_panels) * kHalfTile * 2;
  const int end = (a.columns + 31) / 32;
  const int fit = static_cast<int>(kGroupBytes / panel_bytes);
  const int group = row_bytes <= kRowBytes || fit < 2 ? 1 : fit;
  for (int p0 = 0; p0 < end; p0 += group) {
    const int p1 = p0 + group < end ? p0 + group : end;
    for (int row0 = 0; row0 < a.rows; row0 += kHalfRows)
      for (int p = p0; p < p1; ++p) body(p, row0);
  }
}
