import { describe, expect, test } from 'vitest'
import { identifier, sql, sqlArray } from '../../../supabase/functions/_shared/db/sql.ts'

describe('sql', () => {
  test('makes every value a parameter and splices nested pieces', () => {
    const mine = sql`user_id = ${'u-1'}`
    const query = sql`select * from ${
      identifier('public', 'orders')
    } where ${mine} and total > ${5} limit ${1}`
    expect(query.compile()).toEqual({
      text: 'select * from "public"."orders" where user_id = $1 and total > $2 limit $3',
      values: ['u-1', '5', '1'],
    })
  })

  test.each([
    ['text', 'text'],
    [1.5, '1.5'],
    [true, 'true'],
    [null, null],
    [undefined, null],
    [new Date(0), '1970-01-01T00:00:00.000Z'],
    [new Uint8Array([0, 15, 255]), '\\x000fff'],
    [{ a: 1 }, '{"a":1}'],
    [[1, 'b'], '[1,"b"]'],
  ])('sends %j as %j', (value, text) => {
    expect(sql`${value}`.compile().values).toEqual([text])
  })

  test('sends a bigint as its digits', () => {
    expect(sql`${10n}`.compile().values).toEqual(['10'])
  })

  test.each([[() => 1], [Symbol('s')]])('refuses %s', (value) => {
    expect(() => sql`${value}`.compile()).toThrow(TypeError)
  })

  test('refuses an invalid date', () => {
    expect(() => sql`${new Date(Number.NaN)}`.compile()).toThrow(RangeError)
  })
})

test('sqlArray() writes an array literal that quotes every element', () => {
  expect(sqlArray(['a', 'b "c"', '\\', null, 'x,y{}']).compile().values).toEqual([
    '{"a","b \\"c\\"","\\\\",null,"x,y{}"}',
  ])
})

describe('identifier()', () => {
  test('quotes what would end the name', () => {
    expect(identifier('a"; drop table x; --').compile().text).toBe('"a""; drop table x; --"')
  })

  test.each(['', 'a\0b', 'x'.repeat(64), 'é'.repeat(32)])('refuses %j', (name) => {
    expect(() => identifier(name)).toThrow(TypeError)
  })
})
