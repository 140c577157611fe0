import { describe, expect, test } from 'vitest'
import {
  errorCodes,
  HoldfastError,
  isHoldfastError,
} from '../../../supabase/functions/_shared/core/errors.ts'

describe('HoldfastError', () => {
  test.each(Object.entries(errorCodes))('%s has the status %i', (code, status) => {
    expect(new HoldfastError(code, 'x').status).toBe(status)
  })

  test('of a code it does not know has the status given, else 500', () => {
    expect(new HoldfastError('PAYMENT_DECLINED', 'x', { status: 402 }).status).toBe(402)
    expect(new HoldfastError('toString', 'x').status).toBe(500)
  })

  test.each([[408, true], [409, false], [425, true], [429, true], [500, false], [502, true], [503, true], [
    504,
    true,
  ]])(
    'of status %i is retryable: %s',
    (status, retryable) => {
      expect(new HoldfastError('OWN', 'x', { status }).retryable).toBe(retryable)
    },
  )

  test('keeps its cause', () => {
    const cause = new Error('below')
    expect(new HoldfastError('INTERNAL_ERROR', 'above', { cause }).cause).toBe(cause)
  })
})

test('isHoldfastError() knows one of another copy of the module, and nothing else', async () => {
  const copy = await import('../../../supabase/functions/_shared/core/errors.ts?copy')
  expect(isHoldfastError(new copy.HoldfastError('CONFLICT', 'x'))).toBe(true)
  for (const other of [new Error('x'), null, 'CONFLICT', { code: 'CONFLICT', status: 409 }]) {
    expect(isHoldfastError(other)).toBe(false)
  }
})
