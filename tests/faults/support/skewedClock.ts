/** Puts this process's clock wrong. Timers keep their length, as they do on a machine whose clock is off. */
export function skewClock(byMs: number): void {
  const RealDate = Date
  const skewed = new Proxy(RealDate, {
    construct: (target, args, newTarget) =>
      Reflect.construct(target, args.length === 0 ? [RealDate.now() + byMs] : args, newTarget),
    apply: () => new RealDate(RealDate.now() + byMs).toString(),
    get: (target, name, receiver) =>
      name === 'now' ? () => RealDate.now() + byMs : Reflect.get(target, name, receiver),
  })
  globalThis.Date = skewed
}
