/** Reads the coverage format that `deno coverage --lcov` writes. */

export interface Ratio {
  found: number
  hit: number
}

export interface FileCoverage {
  path: string
  lines: Ratio
  branches: Ratio
  /** Lines that never ran, as `12` or `15-19`. */
  missing: string[]
}

export function parseLcov(text: string): FileCoverage[] {
  const files: FileCoverage[] = []
  let path = ''
  let lines = new Map<number, boolean>()
  let branches: Ratio = { found: 0, hit: 0 }
  for (const line of text.split('\n')) {
    const [key, value = ''] = [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]
    if (key === 'SF') path = value
    if (key === 'DA') {
      const [number = '', hits] = value.split(',')
      lines.set(Number(number), Number(hits) > 0)
    }
    if (key === 'BRDA') {
      branches.found++
      if (!/,(-|0)$/.test(value)) branches.hit++
    }
    if (line === 'end_of_record') {
      const hit = [...lines.values()].filter(Boolean).length
      files.push({ path, lines: { found: lines.size, hit }, branches, missing: rangesOf(lines) })
      lines = new Map()
      branches = { found: 0, hit: 0 }
    }
  }
  return files
}

/** The files as one, without the list of what is missing. */
export function total(files: FileCoverage[]): Omit<FileCoverage, 'path'> {
  const sum = (ratios: Ratio[]) =>
    ratios.reduce((all, one) => ({ found: all.found + one.found, hit: all.hit + one.hit }), {
      found: 0,
      hit: 0,
    })
  return {
    lines: sum(files.map((file) => file.lines)),
    branches: sum(files.map((file) => file.branches)),
    missing: [],
  }
}

/** `87.5 %`; `-` where there is nothing to cover. Rounded down: 100 % means all. */
export function percent({ found, hit }: Ratio): string {
  return found === 0 ? '-' : `${(Math.floor((hit / found) * 1000) / 10).toFixed(1)} %`
}

function rangesOf(lines: Map<number, boolean>): string[] {
  const ranges: string[] = []
  let begin: number | undefined
  let last = 0
  const close = () => {
    if (begin !== undefined) ranges.push(begin === last ? `${begin}` : `${begin}-${last}`)
    begin = undefined
  }
  for (const [line, hit] of [...lines].sort(([a], [b]) => a - b)) {
    if (hit) close()
    else begin ??= line
    last = hit ? last : line
  }
  close()
  return ranges
}
