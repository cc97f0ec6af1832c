// Activations, output units, losses and dropout: everything that works element by element or row by
// row. Included by kernels_impl.h's users after it, in the same namespace.

template <class T>
struct ValueAndSlope {
  V<T> h, d;
};

// phi and phi' of one activation. The compiler drops d where it is not used.
template <class T, int A>
INLINE ValueAndSlope<T> activation(V<T> z) {
  const V<T> zero = {};
  const V<T> one = splat<T>(1);
  if constexpr (A == kIdentity) return {z, one};
  if constexpr (A == kStep) return {z >= zero ? one : (z != z ? z : zero), zero};
  if constexpr (A == kSigmoid) {
    const V<T> s = vsigmoid<T>(z);
    return {s, s * (one - s)};
  }
  if constexpr (A == kTanh) {
    const V<T> t = vtanh<T>(z);
    return {t, one - t * t};
  }
  if constexpr (A == kRelu) return {z < zero ? zero : z, z > zero ? one : zero};
  if constexpr (A == kLeakyRelu) {
    const V<T> slope = z > zero ? one : splat<T>(T(0.01));
    return {z * slope, slope};
  }
  if constexpr (A == kSoftplus) return {vsoftplus<T>(z), vsigmoid<T>(z)};
  if constexpr (A == kGelu) {
    const Normal<T> n = vnormal<T>(z);
    return {z * n.cdf, n.cdf + z * n.pdf};
  }
  if constexpr (A == kGeluTanh) {                           // 0.5 (1 + tanh u) = sigmoid(2u)
    const T c = T(1.5957691216057307117), a = T(0.044715);  // 2 sqrt(2/pi)
    const V<T> s = vsigmoid<T>(c * (z + a * z * z * z));
    return {z * s, s + z * s * (one - s) * (c + T(3) * c * a * z * z)};
  }
  if constexpr (A == kSilu) {
    const V<T> s = vsigmoid<T>(z);
    return {z * s, s + z * s * (one - s)};
  }
  if constexpr (A == kSelu) {
    const T lambda = T(1.0507009873554804934193349852946),
            alpha = T(1.6732632423543772848170429916717);
    const V<T> negative = (lambda * alpha) * vexpm1<T>(z < zero ? z : zero);
    return {z > zero ? lambda * z : (z != z ? z : negative),
            z > zero ? splat<T>(lambda) : negative + lambda * alpha};
  }
  if constexpr (A == kMish) {  // tanh(softplus(z)) = w / (w + 2), w = e^z (e^z + 2); 1 in working
                               // precision past 30
    const V<T> e = vexp<T>(z > T(30) ? splat<T>(30) : z);
    const V<T> w = e * (e + T(2));
    const V<T> t = w / (w + T(2));
    const V<T> s = e / (e + one);
    return {z * t, t + z * s * (T(4) * (w + one) / ((w + T(2)) * (w + T(2))))};
  }
  if constexpr (A == kSine) {
    const SinCos<T> sc = vsincos<T>(z);
    return {sc.sin, sc.cos};
  }
  if constexpr (A == kSquaredRelu) {
    const V<T> r = z < zero ? zero : z;
    return {r * r, T(2) * r};
  }
}

template <class T, int A>
void activate_all(T* z, T* d, ptrdiff_t count) {
  if (d) {
    for (ptrdiff_t i = 0; i < count; i += kLanes<T>) {
      const ValueAndSlope<T> a = activation<T, A>(load(z + i));
      store(z + i, a.h);
      store(d + i, a.d);
    }
  } else {
    for (ptrdiff_t i = 0; i < count; i += kLanes<T>) store(z + i, activation<T, A>(load(z + i)).h);
  }
}
template <class T, int... A>
INLINE void activate_any(Activation a, T* z, T* d, ptrdiff_t count, Sequence<A...>) {
  using Function = void (*)(T*, T*, ptrdiff_t);
  static constexpr Function table[] = {activate_all<T, A>...};
  table[a](z, d, count);
}
template <class T>
void activate(Activation a, T* z, T* d, ptrdiff_t count) {
  activate_any<T>(a, z, d, count, typename MakeSequence<kActivationCount>::type{});
}

template <class T>
void add(T* y, const T* x, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; i += kLanes<T>) store(y + i, load(y + i) + load(x + i));
}

template <class T>
void finish_delta(T* y, Epilogue epilogue, const T* side, int rows, T* column_sums) {
  constexpr int P = kPanel<T>, L = kLanes<T>;
  const V<T> zero = {};
  for (int v = 0; v < P; v += L) {
    V<T> sum = {};
    for (int r = 0; r < rows; ++r) {
      const ptrdiff_t at = static_cast<ptrdiff_t>(r) * P + v;
      V<T> g = load(y + at);
      if (epilogue == kMaskByH) g = load(side + at) > zero ? g : zero;
      if (epilogue == kMulByD) g = g * load(side + at);
      store(y + at, g);
      sum += g;
    }
    if (column_sums) store(column_sums + v, load(column_sums + v) + sum);
  }
}

// lowbias32 (Wellons 2018) and splitmix64's finaliser, the counter first offset by the key.
INLINE U<float> mix(U<float> x, uint64_t key) {
  x = x + static_cast<uint32_t>(key);
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x = x + static_cast<uint32_t>(key >> 32);
  x *= 0x846ca68bu;
  x ^= x >> 16;
  return x;
}
INLINE U<double> mix(U<double> x, uint64_t key) {
  x = x * 0x9e3779b97f4a7c15ull + key;
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  x ^= x >> 31;
  return x;
}
template <class T>
void dropout(T* h, T* d, int rows, uint64_t row0, uint32_t column0, uint64_t key, double rate) {
  constexpr int P = kPanel<T>, L = kLanes<T>;
  using Word = typename Lanes<T>::Word;
  const double range = sizeof(Word) == 4 ? 4294967296.0 : 18446744073709551616.0;
  const Word threshold = static_cast<Word>(rate * range);
  const T scale = static_cast<T>(1.0 / (1.0 - rate));
  const V<T> zero = {};
  U<T> lane;
  for (int i = 0; i < L; ++i) lane[i] = static_cast<Word>(i);
  for (int r = 0; r < rows; ++r) {
    // 2^16 columns a layer before rows' counters overlap in 32 bits; then masks repeat, which is
    // harmless
    const Word base = static_cast<Word>((row0 + static_cast<uint64_t>(r)) * 65536u + column0);
    for (int v = 0; v < P; v += L) {
      const ptrdiff_t at = static_cast<ptrdiff_t>(r) * P + v;
      const U<T> bits = mix(lane + (base + static_cast<Word>(v)), key);
      const V<T> m = bits >= (U<T>{} + threshold) ? splat<T>(scale) : zero;
      store(h + at, load(h + at) * m);
      if (d) store(d + at, load(d + at) * m);
    }
  }
}

// ----------------------------------------------------------------------------------------------
// output units
template <class T>
INLINE V<T> valid_lanes(V<T> x, int count, T other) {
  U<T> lane;
  for (int i = 0; i < kLanes<T>; ++i) lane[i] = static_cast<typename Lanes<T>::Word>(i);
  return lane < (U<T>{} + static_cast<typename Lanes<T>::Word>(count)) ? x : splat<T>(other);
}

// One row of a panel matrix: calls f(column of the register's first lane, its address).
template <class T, class F>
INLINE void each_register(T* row, ptrdiff_t stride, int columns, F f) {
  for (int c = 0; c < columns; c += kLanes<T>) f(c, row + (c / kPanel<T>)*stride + c % kPanel<T>);
}

// p = softmax(z) in place; returns max and sum of exponentials. Padding lanes become 0.
template <class T>
struct SoftmaxRow {
  T max, sum;
};
template <class T>
constexpr T kLowest = -Lanes<T>::kMagic * Lanes<T>::kMagic;
template <class T>
INLINE SoftmaxRow<T> softmax_exponentials(T* row, ptrdiff_t stride, int columns) {
  V<T> top = splat<T>(kLowest<T>);
  each_register(row, stride, columns, [&](int c, T* z) INLINE_LAMBDA {
    top = vmax<T>(top, valid_lanes<T>(load(z), columns - c, kLowest<T>));
  });
  const T max = horizontal_max<T>(top);
  V<T> total = {};
  each_register(row, stride, columns, [&](int c, T* z) INLINE_LAMBDA {
    const V<T> e = valid_lanes<T>(vexp<T>(load(z) - max), columns - c, T(0));
    total += e;
    store(z, e);
  });
  return {max, horizontal_sum<T>(total)};
}

template <class T>
INLINE V<T> output_of(Output output, V<T> z) {
  if (output == kOutSigmoid) return vsigmoid<T>(z);
  if (output == kOutExp) return vexp_wide<T>(z);
  return activation<T, kStep>(z).h;
}

// The output unit over few columns: one lane a row instead of one lane a column, which would leave
// most lanes empty. Bit for bit what output_unit does row by row: sums follow horizontal_sum's
// tree, for which two lanes a register allow four columns.
template <class T>
constexpr int kFewColumns = kLanes<T> >= 4 ? 8 : 4;
template <class T>
void few_columns_output(Output output, T* z, int rows, int columns) {
  constexpr int P = kPanel<T>, L = kLanes<T>, C = kFewColumns<T>;
  alignas(64) T column[C][L];
  V<T> e[C];
  for (int row0 = 0; row0 < rows; row0 += L, z += L * P) {
    const int group = smaller(L, rows - row0);
    for (int i = 0; i < L; ++i)
      for (int j = 0; j < columns; ++j) column[j][i] = z[smaller(i, group - 1) * P + j];
    if (output == kOutSoftmax) {
      V<T> top = splat<T>(kLowest<T>);
      for (int j = 0; j < columns; ++j) top = vmax<T>(top, load(column[j]));
#pragma GCC unroll 8
      for (int j = 0; j < C; ++j) e[j] = j < columns ? vexp<T>(load(column[j]) - top) : V<T>{};
      V<T> sum[C];
#pragma GCC unroll 8
      for (int j = 0; j < C; ++j) sum[j] = e[j];
#pragma GCC unroll 4
      for (int half = C / 2; half >= 1; half /= 2)
#pragma GCC unroll 4
        for (int j = 0; j < half; ++j) sum[j] += sum[j + half];
      const V<T> scale = T(1) / sum[0];
      for (int j = 0; j < columns; ++j) store(column[j], e[j] * scale);
    } else {
      for (int j = 0; j < columns; ++j) store(column[j], output_of<T>(output, load(column[j])));
    }
    for (int i = 0; i < group; ++i)
      for (int j = 0; j < columns; ++j) z[i * P + j] = column[j][i];
  }
}

template <class T>
void output_unit(Output output, T* z, ptrdiff_t stride, int rows, int columns) {
  if (output == kOutIdentity) return;
  if (columns <= kFewColumns<T> && rows > columns)
    return few_columns_output<T>(output, z, rows, columns);
  for (int r = 0; r < rows; ++r, z += kPanel<T>) {
    if (output == kOutSoftmax) {
      const T scale = T(1) / softmax_exponentials(z, stride, columns).sum;
      each_register(z, stride, columns,
                    [&](int, T* p) INLINE_LAMBDA { store(p, load(p) * scale); });
      continue;
    }
    each_register(z, stride, columns,
                  [&](int, T* p) INLINE_LAMBDA { store(p, output_of<T>(output, load(p))); });
  }
}

// ----------------------------------------------------------------------------------------------
// losses
template <class T>
struct LossAndSlope {
  V<T> loss, slope;
};
// The losses that compare a prediction with a target; slope is d loss / d prediction.
template <class T>
INLINE LossAndSlope<T> compare(Loss loss, V<T> p, V<T> y, V<T> level, T delta) {
  const V<T> zero = {};
  const V<T> r = p - y;
  switch (loss) {
    case kSquared:
      return {r * r, T(2) * r};
    case kAbsolute:
      return {vabs<T>(r), r > zero ? splat<T>(1) : (r < zero ? splat<T>(-1) : r)};
    case kHuber: {
      const V<T> a = vabs<T>(r);
      const V<T> linear = r > zero ? splat<T>(delta) : splat<T>(-delta);
      return {a <= delta ? T(0.5) * r * r : delta * (a - T(0.5) * delta),
              a <= delta ? r : (r != r ? r : linear)};
    }
    default: {  // pinball: residual y - p
      const V<T> slope = r < zero ? -level : (r > zero ? T(1) - level : r);
      return {r * slope, slope};
    }
  }
}
template <class T>
INLINE LossAndSlope<T> element_loss(const LossArgs<T>& a, V<T> z, V<T> y, V<T> level) {
  const V<T> zero = {};
  if (a.loss == kBinaryCrossEntropy)
    return {vlog1p_unit<T>(vexp<T>(-vabs<T>(z))) + (z < zero ? zero : z) - z * y,
            vsigmoid<T>(z) - y};
  if (a.loss == kPoisson) {
    const V<T> p = vexp_wide<T>(z);
    return {p - y * z, p - y};
  }
  V<T> p = z, slope = splat<T>(1);
  if (a.output == kOutSigmoid) {
    p = vsigmoid<T>(z);
    slope = p * (T(1) - p);
  } else if (a.output == kOutExp) {
    p = slope = vexp_wide<T>(z);
  } else if (a.output == kOutStep) {
    p = activation<T, kStep>(z).h;
    slope = zero;
  }
  const LossAndSlope<T> l = compare<T>(a.loss, p, y, level, a.parameter);
  return {l.loss, l.slope * slope};
}

template <class T>
double elementwise_loss(const LossArgs<T>& a) {
  constexpr int P = kPanel<T>, L = kLanes<T>;
  double total = 0;
  for (int c = 0; c < a.columns; c += L) {
    const int panel = c / P;
    T* z = a.z + panel * a.z_stride + c % P;
    const T* y = a.y + panel * a.y_stride + c % P;
    const V<T> weight = load(a.column_weight + c);
    const V<T> level = a.column_param ? load(a.column_param + c) : V<T>{};
    V<T> sum = {}, slopes = {};
    for (int r = 0; r < a.rows; ++r, z += P, y += P) {
      const LossAndSlope<T> l = element_loss<T>(a, load(z), load(y), level);
      const V<T> w = a.row_weight ? weight * a.row_weight[r] : weight;
      sum += l.loss * w;
      if (a.want_gradient) {
        const V<T> g = l.slope * w * a.scale;
        slopes += g;
        store(z, g);
      }
    }
    total += static_cast<double>(horizontal_sum<T>(sum));
    if (a.want_gradient) store(a.bias_gradient + c, load(a.bias_gradient + c) + slopes);
  }
  return total;
}

template <class T>
INLINE V<T> softmax_target(const LossArgs<T>& a, int row, int c) {
  const T* y =
      a.y + (c / kPanel<T>)*a.y_stride + static_cast<ptrdiff_t>(row) * kPanel<T> + c % kPanel<T>;
  return load(y);
}

// Any loss through a softmax, one row at a time.
template <class T>
double softmax_loss(const LossArgs<T>& a) {
  const T smooth = a.parameter,
          uniform = a.loss == kCrossEntropy ? smooth / static_cast<T>(a.columns) : T(0);
  double total = 0;
  alignas(64) T lane_sum[kLanes<T>];
  for (int r = 0; r < a.rows; ++r) {
    T* z = a.z + static_cast<ptrdiff_t>(r) * kPanel<T>;
    const T row_weight = a.row_weight ? a.row_weight[r] : T(1);
    const int cls = a.classes ? a.classes[r] : -1;
    V<T> target_sum = {}, target_z = {};  // sum of v t, of v t z
    if (a.loss == kCrossEntropy) {
      each_register(z, a.z_stride, a.columns, [&](int c, T* p) INLINE_LAMBDA {
        V<T> t = a.classes ? V<T>{} : softmax_target(a, r, c) * (T(1) - smooth);
        const V<T> v = load(a.column_weight + c);
        t = (t + uniform) * v;
        target_sum += t;
        target_z += t * load(p);
      });
    }
    T s = horizontal_sum<T>(target_sum), tz = horizontal_sum<T>(target_z);
    T hot = 0;
    if (cls >= 0) {
      hot = (T(1) - smooth) * a.column_weight[cls];
      s += hot;
      tz += hot * z[(cls / kPanel<T>)*a.z_stride + cls % kPanel<T>];
    }
    const SoftmaxRow<T> soft = softmax_exponentials(z, a.z_stride, a.columns);
    const T normal = T(1) / soft.sum;
    if (a.loss == kCrossEntropy) {
      store(lane_sum, vlog<T>(splat<T>(soft.sum)));
      total += static_cast<double>(row_weight) *
               (static_cast<double>(s) * (soft.max + lane_sum[0]) - tz);
      const T k = a.scale * row_weight;
      if (!a.want_gradient) continue;
      each_register(z, a.z_stride, a.columns, [&](int c, T* p) INLINE_LAMBDA {
        V<T> t = a.classes ? V<T>{} : softmax_target(a, r, c) * (T(1) - smooth);
        t = (t + uniform) * load(a.column_weight + c);
        store(p, k * (load(p) * (s * normal) - t));
      });
      if (cls >= 0) z[(cls / kPanel<T>)*a.z_stride + cls % kPanel<T>] -= k * hot;
    } else {  // dz = p (g - sum p g), g the slope of an elementwise loss of p
      V<T> sum = {}, inner = {};
      auto slope_at = [&](int c, V<T> p) INLINE_LAMBDA {
        const V<T> level = a.column_param ? load(a.column_param + c) : V<T>{};
        LossAndSlope<T> l = compare<T>(a.loss, p, softmax_target(a, r, c), level, a.parameter);
        const V<T> v = load(a.column_weight + c);
        return LossAndSlope<T>{l.loss * v, l.slope * v};
      };
      each_register(z, a.z_stride, a.columns, [&](int c, T* p) INLINE_LAMBDA {
        const V<T> q = load(p) * normal;
        const LossAndSlope<T> l = slope_at(c, q);
        sum += l.loss;
        inner += q * l.slope;
        store(p, q);
      });
      total += static_cast<double>(row_weight) * horizontal_sum<T>(sum);
      if (!a.want_gradient) continue;
      const T mean = horizontal_sum<T>(inner), k = a.scale * row_weight;
      each_register(z, a.z_stride, a.columns, [&](int c, T* p) INLINE_LAMBDA {
        const V<T> q = load(p);
        store(p, k * q * (slope_at(c, q).slope - mean));
      });
    }
  }
  if (a.want_gradient)
    for (int c = 0; c < a.columns; c += kLanes<T>) {
      const T* z = a.z + (c / kPanel<T>)*a.z_stride + c % kPanel<T>;
      V<T> sum = {};
      for (int r = 0; r < a.rows; ++r, z += kPanel<T>) sum += load(z);
      store(a.bias_gradient + c, load(a.bias_gradient + c) + sum);
    }
  return total;
}

// Cross-entropy of class ids over few classes: one lane a row instead of one lane a class.
template <class T>
double few_classes_loss(const LossArgs<T>& a) {
  constexpr int P = kPanel<T>, L = kLanes<T>;
  using Word = typename Lanes<T>::Word;
  double total = 0;
  alignas(64) T columns[kFewClasses][L];
  alignas(64) T row_weight[L];
  alignas(64) Word cls[L];
  V<T> bias[kFewClasses];
  for (int j = 0; j < a.columns; ++j) bias[j] = V<T>{};
  for (int row0 = 0; row0 < a.rows; row0 += L) {
    const int group = smaller(L, a.rows - row0);
    T* z = a.z + static_cast<ptrdiff_t>(row0) * P;
    for (int i = 0; i < L; ++i) {
      const int r = smaller(i, group - 1);
      for (int j = 0; j < a.columns; ++j) columns[j][i] = z[r * P + j];
      cls[i] = static_cast<Word>(a.classes[row0 + r]);
      row_weight[i] = i >= group ? T(0) : a.row_weight ? a.row_weight[row0 + r] : T(1);
    }
    V<T> top = load(columns[0]);
    for (int j = 1; j < a.columns; ++j) top = vmax<T>(top, load(columns[j]));
    V<T> sum = {}, picked = {};
    const U<T> id = *reinterpret_cast<const U<T>*>(cls);
    for (int j = 0; j < a.columns; ++j) {
      const V<T> q = load(columns[j]) - top;
      picked = id == (U<T>{} + static_cast<Word>(j)) ? q : picked;
      const V<T> e = vexp<T>(q);
      sum += e;
      store(columns[j], e);
    }
    const V<T> w = load(row_weight);
    total += static_cast<double>(horizontal_sum<T>((vlog<T>(sum) - picked) * w));
    if (!a.want_gradient) continue;
    const V<T> k = w * a.scale, normal = k / sum;
    for (int j = 0; j < a.columns; ++j) {
      const V<T> g =
          load(columns[j]) * normal - (id == (U<T>{} + static_cast<Word>(j)) ? k : V<T>{});
      bias[j] += g;
      store(columns[j], g);
    }
    for (int i = 0; i < group; ++i)
      for (int j = 0; j < a.columns; ++j) z[i * P + j] = columns[j][i];
  }
  if (a.want_gradient)
    for (int j = 0; j < a.columns; ++j) a.bias_gradient[j] += horizontal_sum<T>(bias[j]);
  return total;
}

template <class T>
double loss_kernel(const LossArgs<T>& a) {
  if (a.output != kOutSoftmax) return elementwise_loss(a);
  if (a.loss == kCrossEntropy && a.classes && a.columns <= kFewClasses && a.parameter == T(0) &&
      !a.column_weighted)
    return few_classes_loss(a);
  return softmax_loss(a);
}
