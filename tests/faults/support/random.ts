/** Chance that can be had again: the same seed makes the same choices. */

export interface Random {
  readonly seed: number
  /** At least `min`, at most `max`, whole. */
  between(min: number, max: number): number
  pick<T>(list: readonly T[]): T
  /** True in that share of all cases. */
  chance(share: number): boolean
}

/** Mulberry32: small, and good enough to choose faults. */
export function seeded(seed: number): Random {
  let state = seed >>> 0
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const between = (min: number, max: number) => min + Math.floor(next() * (max - min + 1))
  return {
    seed,
    between,
    pick: <T>(list: readonly T[]): T => list[between(0, list.length - 1)]!,
    chance: (share) => next() < share,
  }
}

/** The seed of this run: `HOLDFAST_STORM_SEED` repeats the choices of an earlier one. */
export function stormSeed(): number {
  return Number(Deno.env.get('HOLDFAST_STORM_SEED') ?? crypto.getRandomValues(new Uint32Array(1))[0])
}
