/** How many there are, and the first of them: a failure of thousands stays readable. */
export function brief(list: readonly unknown[] | undefined): { count: number; first: unknown[] } {
  return { count: list?.length ?? NaN, first: list?.slice(0, 3) ?? [] }
}

export const none = brief([])
