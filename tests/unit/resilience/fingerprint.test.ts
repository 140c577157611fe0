/** What resilience/fingerprint.ts promises: one text for each value, another for any other. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { canonicalJson, digestOf } from '../../../supabase/functions/_shared/resilience/fingerprint.ts'

/** JSON as a client may send it: zero has one sign there. */
const json = fc.jsonValue({ maxDepth: 4 }).map((value) => JSON.parse(JSON.stringify(value)))

/** The same value with its members in another order, at every level. */
function shuffled(value: unknown, random: () => number): unknown {
  if (Array.isArray(value)) return value.map((item) => shuffled(item, random))
  if (typeof value !== 'object' || value === null) return value
  const members = Object.entries(value).map(([name, item]) =>
    [random(), name, shuffled(item, random)] as const
  )
  return fromEntries(members.sort(([a], [b]) => a - b).map(([, name, item]) => [name, item]))
}

/** Not by assignment: `__proto__` is a name like any other in JSON. */
function fromEntries(entries: [string, unknown][]): unknown {
  return JSON.parse(`{${entries.map(([name, item]) => `${JSON.stringify(name)}:${JSON.stringify(item)}`)}}`)
}

/** One place of the value changed: a leaf replaced, an item or member dropped or added. */
function changes(value: unknown): unknown[] {
  if (Array.isArray(value)) {
    return [
      [...value, null],
      ...value.map((_, at) => value.toSpliced(at, 1)),
      ...value.flatMap((item, at) => changes(item).map((changed) => value.with(at, changed))),
    ]
  }
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value)
    return [
      ...entries.map((_, at) => fromEntries(entries.toSpliced(at, 1))),
      ...entries.flatMap(([name, item], at) =>
        changes(item).map((changed) => fromEntries(entries.with(at, [name, changed])))
      ),
      fromEntries([...entries, ['another member', null]]),
    ]
  }
  if (typeof value === 'string') return [`${value} `, [value], null]
  if (typeof value === 'number') return [value + Math.max(1, Math.abs(value) / 2), String(value)]
  if (typeof value === 'boolean') return [!value, String(value)]
  return ['null', 0, [], {}]
}

describe('canonicalJson()', () => {
  test('gives the same text whatever the order of members', () => {
    fc.assert(fc.property(json, fc.infiniteStream(fc.double({ noNaN: true })), (value, numbers) => {
      const random = () => numbers.next().value as number
      expect(canonicalJson(shuffled(value, random))).toBe(canonicalJson(value))
    }))
  })

  test('gives the same text whatever the white space', () => {
    fc.assert(fc.property(json, fc.constantFrom(0, 1, 4, '\t', '\n'), (value, space) => {
      expect(canonicalJson(JSON.parse(JSON.stringify(value, null, space)))).toBe(canonicalJson(value))
    }))
  })

  test('gives a text that means the value, so that no two values share one', () => {
    fc.assert(fc.property(json, (value) => {
      expect(JSON.parse(canonicalJson(value))).toEqual(value)
    }))
  })

  test('gives another text for a value that differs in any one place', () => {
    fc.assert(fc.property(json, (value) => {
      const text = canonicalJson(value)
      for (const changed of changes(value)) expect(canonicalJson(changed)).not.toBe(text)
    }))
  })

  test.each([
    ['a number and its text', '{"a":1}', '{"a":"1"}'],
    ['null and nothing', '{"a":null}', '{}'],
    ['an empty list and an empty object', '[]', '{}'],
    ['a list and the same nested', '[1,2]', '[[1,2]]'],
    ['another order of a list', '[1,2]', '[2,1]'],
    ['a prototype and none', '{"__proto__":{"a":1}}', '{}'],
    ['a name that ends where another begins', '{"ab":"c"}', '{"a":"bc"}'],
    ['halves of a surrogate pair', '"\\ud83d"', '"\\ud83e"'],
  ])('tells %s apart', (_, one, other) => {
    expect(canonicalJson(JSON.parse(one))).not.toBe(canonicalJson(JSON.parse(other)))
  })

  test.each([
    ['1.0', '1'],
    ['1e2', '100'],
    ['-0', '0'],
    ['"\\u0061"', '"a"'],
    ['{"a":1,"a":2}', '{"a":2}'],
  ])('takes %s for %s, as the handler sees it', (one, other) => {
    expect(canonicalJson(JSON.parse(one))).toBe(canonicalJson(JSON.parse(other)))
  })

  test('sorts names by their UTF-16 code units', () => {
    expect(canonicalJson(JSON.parse('{"€":1,"\\r":2,"1":3,"😀":4,"ö":5,"10":6}')))
      .toBe('{"\\r":2,"1":3,"10":6,"ö":5,"€":1,"😀":4}')
  })

  test('refuses a value that is nested without end, and takes one of 500 levels', () => {
    const nested = (levels: number) => JSON.parse('['.repeat(levels) + ']'.repeat(levels))
    expect(canonicalJson(nested(500))).toHaveLength(1_000)
    expect(() => canonicalJson(nested(100_000))).toThrow(
      expect.objectContaining({ code: 'VALIDATION_ERROR' }),
    )
  })
})

test('digestOf() is SHA-256 of the canonical text, in hex', async () => {
  // printf '{"a":1}' | sha256sum
  expect(await digestOf({ a: 1 })).toBe('015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862')
})
