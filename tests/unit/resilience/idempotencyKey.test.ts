/** What resilience/idempotencyKey.ts takes for a key, and what it refuses. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { isHoldfastError } from '../../../supabase/functions/_shared/core/errors.ts'
import {
  formatKeyHeader,
  keyOf,
  parseKeyField,
  parseKeyHeader,
  takeKeyField,
} from '../../../supabase/functions/_shared/resilience/idempotencyKey.ts'

const invalid = expect.objectContaining({ code: 'IDEMPOTENCY_KEY_INVALID', status: 400 })

/** Any key: 1 to 255 characters from space to tilde. */
const key = fc.string({
  unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)),
  minLength: 1,
  maxLength: 255,
})

/** What `Headers` makes of two lines. */
function twice(one: string, other: string): string {
  const headers = new Headers([['idempotency-key', one], ['idempotency-key', other]])
  return headers.get('idempotency-key')!
}

describe('IK1: parseKeyHeader()', () => {
  test('reads back every key that formatKeyHeader() has written', () => {
    fc.assert(fc.property(key, (key) => {
      expect(parseKeyHeader(formatKeyHeader(key))).toBe(key)
    }))
  })

  test('ignores parameters behind the quoted string', () => {
    fc.assert(
      fc.property(key, fc.constantFrom(';v=1', '; v=1;w', ';a="x,\\"y;"', ';t=?1'), (key, parameters) => {
        expect(parseKeyHeader(formatKeyHeader(key) + parameters)).toBe(key)
      }),
    )
  })

  test('never throws anything but IDEMPOTENCY_KEY_INVALID, and gives nothing but keys', () => {
    fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 300 }), (value) => {
      try {
        return /^[ -~]{1,255}$/.test(parseKeyHeader(value))
      } catch (error) {
        return isHoldfastError(error) && error.code === 'IDEMPOTENCY_KEY_INVALID'
      }
    }))
  })

  test.each([
    ['quoted', '"8e03978e-40d5-43dd-bc93-6894a57f9324"', '8e03978e-40d5-43dd-bc93-6894a57f9324'],
    ['bare', '8e03978e-40d5-43dd-bc93-6894a57f9324', '8e03978e-40d5-43dd-bc93-6894a57f9324'],
    ['bare, of many signs', "a+b/c=.d_e~f'g(h)*i!j:k", "a+b/c=.d_e~f'g(h)*i!j:k"],
    ['in spaces, which Headers takes away', new Headers({ k: '  "a" ' }).get('k')!, 'a'],
    ['with a comma inside', '"a,b"', 'a,b'],
    ['with a quote and a backslash inside', String.raw`"a\"b\\c"`, String.raw`a"b\c`],
    ['of 255 characters', `"${'k'.repeat(255)}"`, 'k'.repeat(255)],
    ['of 255 characters, bare', 'k'.repeat(255), 'k'.repeat(255)],
    ['of 255 characters that are escaped', `"${'\\\\'.repeat(255)}"`, '\\'.repeat(255)],
  ])('takes one that is %s', (_, value, expected) => {
    expect(parseKeyHeader(value)).toBe(expected)
  })

  test.each([
    ['empty', ''],
    ['blank', '   '],
    ['an empty string', '""'],
    ['256 characters', `"${'k'.repeat(256)}"`],
    ['256 characters, bare', 'k'.repeat(256)],
    ['two headers', twice('"a"', '"b"')],
    ['two headers with the same key', twice('"a"', '"a"')],
    ['two bare headers', twice('a', 'b')],
    ['a bare and a quoted one', twice('a', '"b"')],
    ['not closed', '"a'],
    ['not opened', 'a"'],
    ['followed by more', '"a"b'],
    ['an escape that is none', String.raw`"a\b"`],
    ['a tab', '"a\tb"'],
    ['a line feed', '"a\nb"'],
    ['a NUL', '"a\0b"'],
    ['a DEL', '"a\x7fb"'],
    ['a control character, bare', 'a\x01b'],
    ['unicode', '"schlüssel"'],
    ['unicode, bare', '🔑'],
    ['a bare key with a space', 'a b'],
    ['a bare key with a parameter', 'a;v=1'],
    ['a broken parameter', '"a";'],
    ['a parameter and another key', '"a";v=1, "b"'],
  ])('refuses one that is %s', (_, value) => {
    expect(() => parseKeyHeader(value)).toThrow(invalid)
  })

  test('takes no more than linear time for a value that nearly is a key', () => {
    const startedAt = performance.now()
    for (const unit of ['\\', '\\"', ';a', ';a=', ' ', 'a', ';a="']) {
      expect(() => parseKeyHeader(`"a"${unit.repeat(100_000)}\x01`)).toThrow(invalid)
    }
    expect(performance.now() - startedAt).toBeLessThan(1_000)
  })
})

describe('parseKeyField()', () => {
  test.each([
    ['nothing', undefined],
    ['null', null],
    ['a number', 1],
    ['a list', ['a']],
    ['an object', { a: 1 }],
    ['an empty string', ''],
    ['256 characters', 'k'.repeat(256)],
    ['a line feed', 'a\nb'],
    ['unicode', 'schlüssel'],
  ])('refuses %s', (_, value) => {
    expect(() => parseKeyField(value)).toThrow(invalid)
  })

  test('takes a string of 1 to 255 visible ASCII characters', () => {
    fc.assert(fc.property(key, (key) => {
      expect(parseKeyField(key)).toBe(key)
    }))
  })
})

describe('keyOf()', () => {
  test.each([
    [null, undefined, undefined],
    ['"a"', undefined, 'a'],
    [null, 'a', 'a'],
    ['"a"', 'a', 'a'],
    ['a', 'a', 'a'],
  ])('of the header %j and the field %j is %j', (header, field, expected) => {
    expect(keyOf(header, field)).toBe(expected)
  })

  test('refuses two different ones, and one that is not valid beside one that is', () => {
    expect(() => keyOf('"a"', 'b')).toThrow(invalid)
    expect(() => keyOf('"a"', '')).toThrow(invalid)
    expect(() => keyOf('', 'a')).toThrow(invalid)
  })
})

describe('takeKeyField()', () => {
  test('takes the field out of an object, whatever its value', () => {
    const body = JSON.parse('{"a":1,"idempotencyKey":null,"__proto__":{"b":2}}')
    expect(takeKeyField(body)).toBeNull()
    expect(JSON.stringify(body)).toBe('{"a":1,"__proto__":{"b":2}}')
  })

  test.each([
    undefined,
    null,
    1,
    'text',
    [['idempotencyKey', 'a']],
    {},
    JSON.parse('{"__proto__":{"idempotencyKey":"a"}}'),
  ])(
    'finds none in %j',
    (body) => {
      expect(takeKeyField(body)).toBeUndefined()
    },
  )
})

test('formatKeyHeader() refuses what is no key', () => {
  for (const key of ['', 'k'.repeat(256), 'a\nb', 'schlüssel']) {
    expect(() => formatKeyHeader(key)).toThrow(TypeError)
  }
})
