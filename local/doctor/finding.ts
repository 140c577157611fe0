/** One line of the doctor's report. */
export interface Finding {
  area: 'Prerequisites' | 'Ports' | 'Functions' | 'Database' | 'Pooler'
  /** What was looked at. */
  name: string
  state: 'ok' | 'problem' | 'skipped'
  /** What was found. */
  detail: string
  /** What to do; a problem always says it. */
  fix?: string
}

/** Makes the findings of one area. */
export function findings(area: Finding['area']) {
  return {
    ok: (name: string, detail: string): Finding => ({ area, name, state: 'ok', detail }),
    problem: (name: string, detail: string, fix: string): Finding => ({
      area,
      name,
      state: 'problem',
      detail,
      fix,
    }),
    skipped: (name: string, detail: string): Finding => ({ area, name, state: 'skipped', detail }),
  }
}
