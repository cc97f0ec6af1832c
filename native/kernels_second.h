// Derivatives of outputs with respect to inputs, element by element: how a value, its tangents and
// a curvature go through an activation, and how deltas come back. Included after
// kernels_pointwise.h, in the namespace of one instruction set.

template <class T>
struct Derivatives {
  V<T> h, d1, d2, d3;  // phi and its first three derivatives
};

// The compiler drops those that are not used. A kink counts as its right-hand side does in phi':
// second derivatives are those almost everywhere.
template <class T, int A>
INLINE Derivatives<T> derivatives(V<T> z) {
  const V<T> zero = {};
  const V<T> one = splat<T>(1);
  if constexpr (A == kExpUnit) {
    const V<T> e = vexp<T>(z);
    return {e, e, e, e};
  } else {
    const ValueAndSlope<T> f = activation<T, A>(z);
    if constexpr (A == kSigmoid)
      return {f.h, f.d, f.d * (one - T(2) * f.h), f.d * (one - T(6) * f.d)};
    if constexpr (A == kTanh) return {f.h, f.d, T(-2) * f.h * f.d, f.d * (T(6) * f.h * f.h - T(2))};
    if constexpr (A == kSoftplus) {
      const V<T> s1 = f.d * (one - f.d);
      return {f.h, f.d, s1, s1 * (one - T(2) * f.d)};
    }
    if constexpr (A == kGelu) {
      const V<T> density = vnormal<T>(z).pdf;
      return {f.h, f.d, density * (T(2) - z * z), density * z * (z * z - T(4))};
    }
    if constexpr (A == kGeluTanh) {  // z sigmoid(u), u = c (z + a z^3); flat past |z| = 15
      const T c = T(1.5957691216057307117), a = T(0.044715);
      const V<T> y = clamp<T>(z, T(-15), T(15));
      const V<T> s = vsigmoid<T>(c * (y + a * y * y * y));
      const V<T> u1 = c + T(3) * c * a * y * y, u2 = T(6) * c * a * y;
      const V<T> s1 = s * (one - s), s2 = s1 * (one - T(2) * s), s3 = s1 * (one - T(6) * s1);
      const V<T> g1 = s1 * u1, g2 = s2 * u1 * u1 + s1 * u2;
      const V<T> g3 = s3 * u1 * u1 * u1 + T(3) * s2 * u1 * u2 + s1 * (T(6) * c * a);
      return {f.h, s + y * g1, T(2) * g1 + y * g2, T(3) * g2 + y * g3};
    }
    if constexpr (A == kSilu) {
      const V<T> s = vsigmoid<T>(z), s1 = s * (one - s);
      const V<T> s2 = s1 * (one - T(2) * s), s3 = s1 * (one - T(6) * s1);
      return {f.h, f.d, T(2) * s1 + z * s2, T(3) * s2 + z * s3};
    }
    if constexpr (A == kSelu) {
      const V<T> tail = z > zero ? zero : f.d;
      return {f.h, f.d, tail, tail};
    }
    if constexpr (A == kMish) {  // z t, t = tanh(softplus(z)): t' = b s with b = 1 - t^2
      const V<T> e = vexp<T>(z > T(30) ? splat<T>(30) : z);
      const V<T> w = e * (e + T(2));
      const V<T> t = w / (w + T(2)), b = T(4) * (w + one) / ((w + T(2)) * (w + T(2)));
      const V<T> s = e / (e + one), s1 = s / (e + one), s2 = s1 * (one - T(2) * s);
      const V<T> t1 = b * s, t2 = b * (s1 - T(2) * t * s * s);
      const V<T> t3 =
          b * (s2 - T(6) * t * s * s1 + T(4) * t * t * s * s * s - T(2) * b * s * s * s);
      return {f.h, f.d, T(2) * t1 + z * t2, T(3) * t2 + z * t3};
    }
    if constexpr (A == kSine) return {f.h, f.d, -f.h, -f.d};
    if constexpr (A == kSquaredRelu) return {f.h, f.d, z > zero ? splat<T>(2) : zero, zero};
    return {f.h, f.d, zero, zero};  // identity, step, relu, leaky_relu: straight pieces
  }
}

// Each register is read once and its derivatives stay in registers while the tangents stream by.
template <class T, int A, int Order>
void jet_forward_as(const JetArgs<T>& a) {
  for (ptrdiff_t i = 0; i < a.count; i += kLanes<T>) {
    const Derivatives<T> f = derivatives<T, A>(load(a.z + i));
    store(a.h + i, f.h);
    if (a.keep) {
      store(a.d1 + i, f.d1);
      if constexpr (Order >= 2) store(a.d2 + i, f.d2);
      if constexpr (Order >= 3) store(a.d3 + i, f.d3);
    }
    const T* z = a.z + i;
    T* h = a.h + i;
    V<T> squares = {};
    for (int j = 0; j < a.n_tangents; ++j) {
      z += a.count, h += a.count;
      const V<T> t = load(z);
      store(h, f.d1 * t);
      if (a.curvature) squares += a.curvature[j] * t * t;
    }
    if (a.curvature) store(h + a.count, f.d1 * load(z + a.count) + f.d2 * squares);
  }
}
template <class T, int Order, int... A>
INLINE void jet_forward_any(const JetArgs<T>& a, Sequence<A...>) {
  using Function = void (*)(const JetArgs<T>&);
  static constexpr Function table[] = {jet_forward_as<T, A, Order>...};
  table[a.function](a);
}
template <class T>
void jet_forward(const JetArgs<T>& a) {
  using All = typename MakeSequence<kExpUnit + 1>::type;
  const int order = a.curvature ? (a.keep ? 3 : 2) : (a.keep && a.n_tangents ? 2 : 1);
  if (order == 1) return jet_forward_any<T, 1>(a, All{});
  if (order == 2) return jet_forward_any<T, 2>(a, All{});
  return jet_forward_any<T, 3>(a, All{});
}

template <class T>
void jet_backward(const JetArgs<T>& a) {
  constexpr int P = kPanel<T>, L = kLanes<T>;
  for (int v = 0; v < P; v += L) {
    V<T> sum = {};
    for (ptrdiff_t i = v; i < a.count; i += P) {
      const V<T> d1 = load(a.d1 + i), d2 = a.n_tangents ? load(a.d2 + i) : V<T>{};
      const ptrdiff_t last = i + (a.n_tangents + 1) * a.count;
      const V<T> b = a.curvature ? load(a.delta + last) : V<T>{};
      V<T> inner = {}, squares = {};
      for (int j = 0; j < a.n_tangents; ++j) {
        const ptrdiff_t at = i + (j + 1) * a.count;
        const V<T> t = load(a.z + at), g = load(a.delta + at);
        inner += t * g;
        V<T> out = d1 * g;
        if (a.curvature) {
          const V<T> c = a.curvature[j] * t;
          squares += c * t;
          out += d2 * b * (c + c);
        }
        store(a.delta + at, out);
      }
      V<T> g = d1 * load(a.delta + i) + d2 * inner;
      if (a.curvature) {
        g += b * (d2 * load(a.z + last) + load(a.d3 + i) * squares);
        store(a.delta + last, d1 * b);
      }
      store(a.delta + i, g);
      sum += g;
    }
    if (a.column_sums) store(a.column_sums + v, load(a.column_sums + v) + sum);
  }
}
