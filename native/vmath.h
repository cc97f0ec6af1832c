// Vector mathematics on the compiler's vector extensions, for one instruction set.
//
// Included by kernels_impl.h only, inside the namespace of one ISA, so that no symbol is shared
// between translation units that were compiled with different flags (one-definition rule). V<T> is
// a full register of T; U<T>/S<T> are unsigned/signed integers of the same width. Bounds, in ULP of
// the result, are held by tests/native/test_vector_math.py against mpmath-grade references. Nothing
// here handles subnormals: workers run with flush-to-zero set.

template <class T>
struct Lanes;
template <>
struct Lanes<float> {
  typedef float V __attribute__((vector_size(LAMINA_VBYTES)));
  typedef uint32_t U __attribute__((vector_size(LAMINA_VBYTES)));
  typedef int32_t S __attribute__((vector_size(LAMINA_VBYTES)));
  typedef float Unaligned __attribute__((vector_size(LAMINA_VBYTES), aligned(4)));
  typedef uint32_t Word;
  static constexpr int kMantissa = 23;
  static constexpr uint32_t kOneBits = 0x3f800000u;
  static constexpr float kMagic = 12582912.0f;                  // 1.5 * 2^23: rounds to integer
  static constexpr float kExpLow = -87.33f, kExpHigh = 88.37f;  // 2^-126 ... 2^127.49
  static constexpr float kExpZero = -104.f, kExpInfinity = 89.f;
  static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  static constexpr float kPi1 = 3.140625f, kPi2 = 0.0009670257568359375f;
  static constexpr float kPi3 = 6.2771141529083251953e-7f, kPi4 = 1.2154201256553420e-10f;
  static constexpr uint32_t kSqrtHalfBits = 0x3f3504f3u;
};
template <>
struct Lanes<double> {
  typedef double V __attribute__((vector_size(LAMINA_VBYTES)));
  typedef uint64_t U __attribute__((vector_size(LAMINA_VBYTES)));
  typedef int64_t S __attribute__((vector_size(LAMINA_VBYTES)));
  typedef double Unaligned __attribute__((vector_size(LAMINA_VBYTES), aligned(8)));
  typedef uint64_t Word;
  static constexpr int kMantissa = 52;
  static constexpr uint64_t kOneBits = 0x3ff0000000000000ull;
  static constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kExpLow = -708.39, kExpHigh = 709.43;
  static constexpr double kExpZero = -746., kExpInfinity = 710.;
  static constexpr double kLn2High = 6.93147180369123816490e-1,
                          kLn2Low = 1.90821492927058770002e-10;
  static constexpr double kPi1 = 3.1415926218032836914, kPi2 = 3.1786509424591713469e-08;
  static constexpr double kPi3 = 1.2246467864107188502e-16, kPi4 = 1.2736634327021899816e-24;
  static constexpr uint64_t kSqrtHalfBits = 0x3fe6a09e667f3bcdull;
};

template <class T>
using V = typename Lanes<T>::V;
template <class T>
using U = typename Lanes<T>::U;
template <class T>
using S = typename Lanes<T>::S;
template <class T>
constexpr int kLanes = LAMINA_VBYTES / static_cast<int>(sizeof(T));

template <class T>
INLINE V<T> splat(T a) {
  return a - V<T>{};  // folds to a broadcast; zero + a would not (signed zeros)
}
template <class T>
INLINE V<T> load(const T* p) {
  return *reinterpret_cast<const V<T>*>(p);
}
template <class T>
INLINE V<T> loadu(const T* p) {
  return *reinterpret_cast<const typename Lanes<T>::Unaligned*>(p);
}
template <class T>
INLINE void store(T* p, V<T> a) {
  *reinterpret_cast<V<T>*>(p) = a;
}
template <class T>
INLINE V<T> vabs(V<T> x) {
  const U<T> sign = (U<T>{} + 1) << (8 * sizeof(T) - 1);
  return reinterpret_cast<V<T>>(reinterpret_cast<U<T>>(x) & ~sign);
}
// NaN in x survives: the comparison is false, so x is kept.
template <class T>
INLINE V<T> clamp(V<T> x, T low, T high) {
  x = x > high ? splat<T>(high) : x;
  return x < low ? splat<T>(low) : x;
}

template <class T, int N>
struct Coefficients {
  T c[N];
};
template <class T, int N>
INLINE V<T> horner(V<T> x, const Coefficients<T, N>& a) {
  V<T> p = splat<T>(a.c[N - 1]);
#pragma GCC unroll 32
  for (int i = N - 2; i >= 0; --i) p = p * x + a.c[i];
  return p;
}

// (e^r - 1 - r) / r^2 by Taylor's series, |r| <= ln(2)/2: degree chosen so that the first dropped
// term is below eps/4.
INLINE V<float> exp_tail(V<float> r) {
  constexpr Coefficients<float, 6> a = {
      {1.f / 2, 1.f / 6, 1.f / 24, 1.f / 120, 1.f / 720, 1.f / 5040}};
  return horner<float, 6>(r, a);
}
INLINE V<double> exp_tail(V<double> r) {
  constexpr Coefficients<double, 12> a = {{1. / 2, 1. / 6, 1. / 24, 1. / 120, 1. / 720, 1. / 5040,
                                           1. / 40320, 1. / 362880, 1. / 3628800, 1. / 39916800,
                                           1. / 479001600, 1. / 6227020800.}};
  return horner<double, 12>(r, a);
}

// x = n ln2 + r: returns e^r - 1 and 2^n.
template <class T>
struct ExpParts {
  V<T> expm1_r, two_n;
};
template <class T>
INLINE ExpParts<T> exp_parts(V<T> x) {
  using L = Lanes<T>;
  x = clamp<T>(x, L::kExpLow, L::kExpHigh);
  const V<T> t = x * T(1.4426950408889634074) + L::kMagic;  // low mantissa bits of t hold n
  const V<T> n = t - L::kMagic;
  V<T> r = x - n * L::kLn2High;
  r = r - n * L::kLn2Low;
  const U<T> bits = (reinterpret_cast<U<T>>(t) << L::kMantissa) + L::kOneBits;
  return {r + r * r * exp_tail(r), reinterpret_cast<V<T>>(bits)};
}
// e^x: 2 ULP on [kExpLow, kExpHigh], saturates outside (never infinite); NaN stays NaN.
template <class T>
INLINE V<T> vexp(V<T> x) {
  const ExpParts<T> e = exp_parts<T>(x);
  return e.two_n + e.two_n * e.expm1_r;
}
// e^x wherever it is a number: 2 ULP, infinite above and 0 below the range of normal numbers. Its
// 2^n is two factors, because 2^128 and 2^-127 are out of reach of one. What users see as e^x is
// this; inside a quotient, where saturation changes nothing, vexp is cheaper.
template <class T>
INLINE V<T> vexp_wide(V<T> x) {
  using L = Lanes<T>;
  x = clamp<T>(x, L::kExpZero, L::kExpInfinity);
  const V<T> t = x * T(1.4426950408889634074) + L::kMagic;
  const V<T> n = t - L::kMagic;
  V<T> r = x - n * L::kLn2High;
  r = r - n * L::kLn2Low;
  const U<T> magic_bits = reinterpret_cast<U<T>>(splat<T>(L::kMagic));
  const S<T> whole = reinterpret_cast<S<T>>(reinterpret_cast<U<T>>(t) - magic_bits);
  const U<T> half = reinterpret_cast<U<T>>(whole >> 1);
  const U<T> rest = reinterpret_cast<U<T>>(whole) - half;
  const V<T> first = reinterpret_cast<V<T>>((half << L::kMantissa) + L::kOneBits);
  const V<T> second = reinterpret_cast<V<T>>((rest << L::kMantissa) + L::kOneBits);
  return (first + first * (r + r * r * exp_tail(r))) * second;
}
// e^x - 1: 3 ULP.
template <class T>
INLINE V<T> vexpm1(V<T> x) {
  const ExpParts<T> e = exp_parts<T>(x);
  return e.two_n * e.expm1_r + (e.two_n - T(1));
}

// atanh(s)/s - 1 over s^2, s^2 <= 1/9: sum of s^(2k)/(2k+3).
INLINE V<float> atanh_tail(V<float> w) {
  constexpr Coefficients<float, 7> a = {
      {1.f / 3, 1.f / 5, 1.f / 7, 1.f / 9, 1.f / 11, 1.f / 13, 1.f / 15}};
  return horner<float, 7>(w, a);
}
INLINE V<double> atanh_tail(V<double> w) {
  constexpr Coefficients<double, 16> a = {{1. / 3, 1. / 5, 1. / 7, 1. / 9, 1. / 11, 1. / 13,
                                           1. / 15, 1. / 17, 1. / 19, 1. / 21, 1. / 23, 1. / 25,
                                           1. / 27, 1. / 29, 1. / 31, 1. / 33}};
  return horner<double, 16>(w, a);
}
// log(1 + u), 0 <= u <= 1: 3 ULP.
template <class T>
INLINE V<T> vlog1p_unit(V<T> u) {
  const V<T> s = u / (u + T(2));
  const V<T> w = s * s;
  return T(2) * (s + s * w * atanh_tail(w));
}
// log(x) for normal x > 0: 3 ULP away from 1, absolute eps near 1.
template <class T>
INLINE V<T> vlog(V<T> x) {
  using L = Lanes<T>;
  const U<T> shifted = reinterpret_cast<U<T>>(x) - L::kSqrtHalfBits;
  const S<T> e = reinterpret_cast<S<T>>(shifted) >> L::kMantissa;
  const V<T> m = reinterpret_cast<V<T>>(reinterpret_cast<U<T>>(x) -
                                        (reinterpret_cast<U<T>>(e) << L::kMantissa));
  const U<T> magic_bits = reinterpret_cast<U<T>>(splat<T>(L::kMagic));
  const V<T> n = reinterpret_cast<V<T>>(reinterpret_cast<U<T>>(e) + magic_bits) - L::kMagic;
  const V<T> s = (m - T(1)) / (m + T(1));
  const V<T> w = s * s;
  V<T> y = T(2) * (s + s * w * atanh_tail(w)) + n * L::kLn2Low;
  y = y + n * L::kLn2High;
  return x != x ? x : y;
}

// 4 ULP, as is vsoftplus below.
template <class T>
INLINE V<T> vsigmoid(V<T> x) {
  return T(1) / (T(1) + vexp<T>(-x));
}
// tanh through expm1, so that small x keep their relative accuracy: 4 ULP.
template <class T>
INLINE V<T> vtanh(V<T> x) {
  V<T> a = vabs<T>(x);
  a = a > T(20) ? splat<T>(T(20)) : a;
  const V<T> e = vexpm1<T>(a + a);
  const V<T> t = e / (e + T(2));
  return x < T(0) ? -t : t;
}
template <class T>
INLINE V<T> vsoftplus(V<T> x) {
  const V<T> zero = {};
  return (x < T(0) ? zero : x) + vlog1p_unit<T>(vexp<T>(-vabs<T>(x)));
}

// (1 + 2a) erfcx(a) as a polynomial in t = (a - k)/(a + k), a >= 0 (Shepherd & Laframboise 1981,
// Math. Comp. 36, 249-253; coefficients fitted here by Chebyshev interpolation in 60 digits): 2
// ULP.
INLINE V<float> erfcx_positive(V<float> a) {
  constexpr Coefficients<float, 10> c = {
      {1.2648380994796753f, -0.12235746532678604f, -0.09901800006628036f, 0.15764430165290833f,
       -0.10302047431468964f, 0.03267756849527359f, 0.001086579984985292f, -0.004180246498435736f,
       0.00030354285263456404f, 0.00040548891411162913f}};
  return horner<float, 10>((a - 2.5f) / (a + 2.5f), c) / (1.f + 2.f * a);
}
INLINE V<double> erfcx_positive(V<double> a) {
  constexpr Coefficients<double, 23> c = {
      {1.2375126308378275,      -0.14024059858554525,   0.0035854154854790257,
       0.08227673848999506,     -0.10880393014244462,   0.09230432116428125,
       -0.05869339857664934,    0.02836227737211114,    -0.009746579683265262,
       0.0017556261651970652,   0.000293714378044958,   -0.00029015535246077655,
       5.164652974177416e-05,   2.2387565714911816e-05, -1.1438048033346894e-05,
       -9.792625707303523e-07,  1.7419821586224816e-06, -5.084465378687302e-08,
       -2.4857126248016745e-07, 1.879082322370048e-08,  3.197926671666804e-08,
       -1.9551358868985616e-09, -2.623107347133476e-09}};
  return horner<double, 23>((a - 3.75) / (a + 3.75), c) / (1. + 2. * a);
}
// Phi(x), the standard normal's distribution function, and its density phi(x). Phi: 8 ULP for x >=
// -1; below, the rounding of x^2 in the exponent adds x^2 ULP.
template <class T>
struct Normal {
  V<T> cdf, pdf;
};
template <class T>
INLINE Normal<T> vnormal(V<T> x) {
  const V<T> e = vexp<T>(x * x * T(-0.5));
  const V<T> tail = T(0.5) * e * erfcx_positive(vabs<T>(x) * T(0.70710678118654752440));
  return {x > T(0) ? T(1) - tail : tail, e * T(0.39894228040143267794)};
}

// sin and cos by x = n pi + r, |r| <= pi/2, four-part Cody-Waite reduction: absolute error 2 eps
// for |x| <= 1e4 (float) or 1e7 (double).
template <class T>
struct SinCos {
  V<T> sin, cos;
};
INLINE V<float> sin_tail(V<float> w) {
  constexpr Coefficients<float, 6> a = {
      {-1.f / 6, 1.f / 120, -1.f / 5040, 1.f / 362880, -1.f / 39916800, 1.f / 6227020800.f}};
  return horner<float, 6>(w, a);
}
INLINE V<double> sin_tail(V<double> w) {
  constexpr Coefficients<double, 11> a = {
      {-1. / 6, 1. / 120, -1. / 5040, 1. / 362880, -1. / 39916800, 1. / 6227020800.,
       -1. / 1307674368000., 1. / 355687428096000., -1. / 121645100408832000.,
       1. / 51090942171709440000., -1. / 25852016738884976640000.}};
  return horner<double, 11>(w, a);
}
INLINE V<float> cos_tail(V<float> w) {
  constexpr Coefficients<float, 7> a = {{-1.f / 2, 1.f / 24, -1.f / 720, 1.f / 40320,
                                         -1.f / 3628800, 1.f / 479001600.f, -1.f / 87178291200.f}};
  return horner<float, 7>(w, a);
}
INLINE V<double> cos_tail(V<double> w) {
  constexpr Coefficients<double, 12> a = {
      {-1. / 2, 1. / 24, -1. / 720, 1. / 40320, -1. / 3628800, 1. / 479001600., -1. / 87178291200.,
       1. / 20922789888000., -1. / 6402373705728000., 1. / 2432902008176640000.,
       -1. / 1124000727777607680000., 1. / 620448401733239439360000.}};
  return horner<double, 12>(w, a);
}
template <class T>
INLINE SinCos<T> vsincos(V<T> x) {
  using L = Lanes<T>;
  const V<T> t = x * T(0.31830988618379067154) + L::kMagic;
  const V<T> n = t - L::kMagic;
  V<T> r = x - n * L::kPi1;
  r = r - n * L::kPi2;
  r = r - n * L::kPi3;
  r = r - n * L::kPi4;
  const V<T> w = r * r;
  const U<T> sign = reinterpret_cast<U<T>>(t) << (8 * sizeof(T) - 1);  // odd n flips both
  const V<T> s = r + r * w * sin_tail(w);
  const V<T> c = T(1) + w * cos_tail(w);
  return {reinterpret_cast<V<T>>(reinterpret_cast<U<T>>(s) ^ sign),
          reinterpret_cast<V<T>>(reinterpret_cast<U<T>>(c) ^ sign)};
}
